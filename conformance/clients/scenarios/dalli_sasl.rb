# Ruby's dalli before 5, which logs in by SASL. Arguments and report are those of child.py.

require "dalli"
require "json"
require "logger"
require "timeout"

Dalli.logger = Logger.new(File::NULL)

HOST, PORT, _, _, *ONLY = ARGV
SECONDS_A_SCENARIO = 60
STAMP = Process.clock_gettime(Process::CLOCK_REALTIME, :nanosecond).to_s(16)
CALLS = Hash.new(0)

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

report = $stdout.dup
report.sync = true
$stdout.reopen($stderr)
covered = {}
SCENARIOS.each do |name, scenario|
  next unless ONLY.empty? || ONLY.include?(name)

  CALLS.clear
  started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  error = nil
  begin
    Timeout.timeout(SECONDS_A_SCENARIO, SystemExit, "no end after #{SECONDS_A_SCENARIO} s") { scenario.call }
  rescue StandardError, LoadError, SystemExit => e
    error = "#{e.class}: #{e.message}"
  end
  CALLS.each_key { |operation| covered[operation] = true }
  report.puts JSON.generate(
    scenario: name, operations: CALLS.values.sum, error: error,
    seconds: (Process.clock_gettime(Process::CLOCK_MONOTONIC) - started).round(3)
  )
end
report.puts JSON.generate(title: "dalli (SASL)", version: Dalli::VERSION, covered: covered.keys.sort, missing: [])
