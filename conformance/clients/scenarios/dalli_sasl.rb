# Ruby's dalli before 5, which logs in by SASL.

require "dalli"
require "logger"
require_relative "../harness"

Dalli.logger = Logger.new(File::NULL)

def connect(password)
  Dalli::Client.new("#{HOST}:#{PORT}", socket_timeout: 10, socket_max_failures: 0, username: "alice", password: password)
end

def asked(client, operation, *arguments)
  CALLS["Client.#{operation}"] += 1
  client.public_send(operation, *arguments)
end

SCENARIOS = {
  "a login" => lambda {
    client = connect("secret")
    asked(client, :set, STAMP, "value")
    raise "another value" unless asked(client, :get, STAMP) == "value"
    raise "other values" unless asked(client, :get_multi, STAMP, "none") == { STAMP => "value" }

    client.close
  },

  "a wrong password" => lambda {
    begin
      asked(connect("wrong"), :get, STAMP)
    rescue Dalli::DalliError
      next
    end
    raise "the server took it"
  }
}.freeze

run(SCENARIOS, title: "dalli (SASL)", version: Dalli::VERSION, seconds: 60)
