# Ruby's dalli before 5: the binary protocol, as Rails had it, with Rack's sessions.

require "dalli"
require "logger"
require_relative "../harness"

Dalli.logger = Logger.new(File::NULL)

LIMIT = 1024 * 1024
EVERYTHING = ((0..255).to_a.pack("C*") + "\r\nEND\r\nSTORED\r\nVALUE x 0 1\r\n\r\n".b).freeze

# A client whose calls are counted by method.
class Counted < BasicObject
  def initialize(target)
    @target = target
  end

  def method_missing(name, *arguments, **options, &block)
    ::CALLS["Client.#{name}"] += 1
    @target.public_send(name, *arguments, **options, &block)
  end

  def respond_to_missing?(*) = true
end

def connect(servers = "#{HOST}:#{PORT}", **options)
  Counted.new(Dalli::Client.new(servers, { socket_timeout: 10, **options }))
end

def both = ["#{HOST}:#{PORT}", "127.0.0.1:#{SECOND}"]

def key(part = "k") = "#{$prefix}:#{part}"

def equal(actual, expected, what = nil)
  return if actual == expected

  raise "#{what || "line #{caller_locations(1, 1).first.lineno}"}: " \
        "got #{actual.inspect[0, 200]}, expected #{expected.inspect[0, 200]}"
end

def check(condition, what)
  raise what unless condition
end

def raises(kind, text = "")
  yield
rescue kind => e
  check(e.message.include?(text), "#{kind} says #{e.message}, expected #{text} in it")
else
  raise "expected #{kind}"
end

SCENARIOS = {
  "storage" => lambda {
    [connect, connect(both)].each_with_index do |client, number|
      name = key(number)
      equal(client.get(name), nil)
      equal(client.replace(name, "no"), 0, "dalli's answer where nothing is there to replace")
      equal(client.append(name, "no"), false)
      equal(client.prepend(name, "no"), false)
      check(client.add(name, "one", 0, raw: true), "add")
      equal(client.add(name, "two", 0, raw: true), false)
      equal(client.append(name, ">"), true)
      equal(client.prepend(name, "<"), true)
      equal(client.get(name, raw: true), "<one>")
      check(client.replace(name, "three"), "replace")
      check(client.set(name, "four"), "set")
      equal(client.get(name), "four")
      equal(client.delete(name), true)
      equal(client.delete(name), nil)
      equal(client.fetch(name) { "made" }, "made")
      equal(client.fetch(name) { "made again" }, "made")
      client.close
    end
  },

  "nothing in the cache" => lambda {
    client = connect(cache_nils: true)
    check(client.cache_nils, "cache_nils")
    check(client.not_found?(client.get(key, cache_nils: true)), "not found")
    equal(client.fetch(key) { nil }, nil)
    equal(client.get(key, cache_nils: true), nil)
    client.close
  },

  "compare and swap" => lambda {
    client = connect
    client.set(key, "one")
    value, unique = client.get_cas(key)
    equal(value, "one")
    check(client.set_cas(key, "two", unique), "set_cas")
    equal(client.set_cas(key, "three", unique), false)
    equal(client.replace_cas(key, "three", unique), false)
    equal(client.delete_cas(key, unique), false)
    check(client.cas(key) { |old| "#{old}!" }, "cas")
    equal(client.cas(key) { |old| client.set(key, "between") && "#{old}?" }, false)
    equal(client.cas(key("none")) { "new" }, nil)
    check(client.cas!(key("none")) { |old| old.inspect }, "cas!")
    equal(client.get(key("none")), "nil")
    value, unique = client.get_multi_cas(key, key("absent"))[key]
    equal(value, "between")
    check(client.replace_cas(key, "replaced", unique), "replace_cas")
    check(client.delete_cas(key, client.get_cas(key)[1]), "delete_cas")
    equal(client.get(key), nil)
    client.close
  },

  "arithmetic" => lambda {
    client = connect
    equal(client.incr(key, 5), nil)
    equal(client.incr(key, 5, 0, 10), 10)
    equal(client.incr(key, 5), 15)
    equal(client.decr(key, 6), 9)
    equal(client.decr(key, 60), 0)
    equal(client.decr(key("none"), 1), nil)
    client.set(key, (2**64 - 1).to_s, 0, raw: true)
    equal(client.incr(key, 2), 1, "a counter wraps")
    client.set(key, "letters", 0, raw: true)
    raises(Dalli::DalliError, "non-numeric") { client.incr(key) }
    equal(client.get(key, raw: true), "letters")
    client.close
  },

  "many keys" => lambda {
    [connect, connect(both)].each do |client|
      values = (1..1000).to_h { |number| [key(number), number.to_s * 5] }
      client.multi { values.each { |name, value| client.set(name, value) } }
      equal(client.get_multi(values.keys + [key("none")]), values)
      seen = {}
      client.get_multi(values.keys) { |name, value| seen[name] = value }
      equal(seen, values)
      client.multi do
        values.each_key { |name| client.delete(name) unless name == key(1000) }
        client.add(key("added"), "a")
        client.incr(key("counted"), 1, 0, 7)
      end
      equal(client.get_multi(values.keys), { key(1000) => "1000" * 5 })
      equal(client.get(key("added")), "a")
      equal(client.get(key("counted"), raw: true), "7")
      client.multi { client.set(key(1000), "last") && client.replace(key("absent"), "no") }
      equal(client.get(key(1000)), "last")
      client.delete(key("counted"))
      client.delete(key("added"))
      client.close
    end
  },

  "values of all kinds and sizes" => lambda {
    client = connect
    [nil, true, 12, 2**80, 1.5, "naïve ☃", :symbol, [1, { "a" => 2 }]].each do |value|
      client.set(key, value)
      equal(client.get(key), value)
    end
    plain = connect(compress: false)
    [0, 1, 100, 2048, 65_536, 524_288, LIMIT - 512].each do |size|
      value = (EVERYTHING * (size / 200 + 1)).byteslice(0, size)
      check(plain.set(key, value, 0, raw: true), "#{size} bytes")
      equal(plain.get(key, raw: true).b == value, true, "#{size} bytes")
    end
    check(client.set(key, "ab" * LIMIT), "compressed")
    equal(client.get(key) == "ab" * LIMIT, true)
    client.close
    plain.close
  },

  "too large a value leaves the connection in step" => lambda {
    client = connect(value_max_bytes: 10 * LIMIT, compress: false)
    client.set(key, "old")
    [LIMIT, 3 * LIMIT].each do |size|
      raises(Dalli::DalliError, "Value too large") { client.set(key, "x" * size, 0, raw: true) }
      check(client.set(key("after"), "after"), "set after too large a value")
      equal(client.get(key("after")), "after")
    end
    equal(client.get(key), nil, "the old value is gone")
    client.close
  },

  "keys at their limits" => lambda {
    client = connect
    longest = key.ljust(250, "k")
    client.set(longest, "250")
    equal(client.get(longest), "250")
    client.set("#{longest}k", "251")
    equal(client.get("#{longest}k"), "251", "dalli hashes what is longer")
    client.set(key("with spaces"), "v")
    equal(client.get_multi(key("with spaces")), { key("with spaces") => "v" })
    apart = connect(namespace: "apart")
    equal(apart.get(longest), nil)
    client.close
    apart.close
  },

  "expiry" => lambda {
    client = connect(expires_in: 100)
    client.set(key("second"), "v", 3)
    client.set(key("touched"), "v", 3)
    client.set(key("got"), "v", 3)
    client.set(key("default"), "v")
    equal(client.touch(key("touched"), 100), true)
    equal(client.touch(key("none"), 100), nil)
    equal(client.gat(key("got"), 100), "v")
    equal(client.gat(key("none"), 100), nil)
    sleep 4.2
    left = %w[touched got default].to_h { |name| [key(name), "v"] }
    equal(client.get_multi(%w[second touched got default].map { |name| key(name) }), left)
    client.close
  },

  "administration" => lambda {
    client = connect
    client.alive!
    (version,) = client.version.values
    check(version.match?(/\A\d+\.\d+\.\d+\z/), "version #{version}")
    (figures,) = client.stats.values
    check(figures["pid"].to_i.positive?, "pid")
    %i[settings items slabs].each { |kind| check(client.stats(kind).values.first, "stats #{kind}") }
    client.reset_stats
    equal(client.stats.values.first["cmd_touch"], "0", "statistics that were reset")
    client.with { |same| same.set(key, "v") }
    check(client.flush(100).all?, "flush: its delay is that between servers")
    equal(client.get(key), nil)
    client.set(key, "v")
    client.flush_all
    equal(client.get(key), nil)
    client.set(key, "v")
    client.reset
    equal(client.get(key), "v")
    client.close
  },

  "threads" => lambda {
    client = connect(both)
    client.set(key, 0, 0, raw: true)
    threads = 8.times.map { Thread.new { 200.times { client.incr(key) } } }
    threads.each(&:join)
    equal(client.get(key, raw: true).to_i, 1600)
    client.close
  },

  "rack's sessions" => lambda {
    require "rack"
    require "rack/session/dalli"
    counter = lambda do |env|
      env["rack.session"]["visits"] = env["rack.session"]["visits"].to_i + 1
      env["rack.session.options"][:drop] = true if env["PATH_INFO"] == "/leave"
      [200, {}, [env["rack.session"]["visits"].to_s]]
    end
    app = Rack::MockRequest.new(
      Rack::Session::Dalli.new(counter, memcache_server: "#{HOST}:#{PORT}", namespace: key, expire_after: 100)
    )
    first = app.get("/")
    cookie = first["Set-Cookie"][/rack\.session=[^;]+/]
    equal(first.body, "1")
    equal(app.get("/", "HTTP_COOKIE" => cookie).body, "2")
    equal(app.get("/leave", "HTTP_COOKIE" => cookie).body, "3")
    equal(app.get("/", "HTTP_COOKIE" => cookie).body, "1", "a session that was dropped")
  },

  "a time out in the middle" => lambda {
    silent = connect("127.0.0.1:#{MUTE}", socket_timeout: 0.3, socket_max_failures: 0)
    raises(Dalli::RingError) { silent.set(key, "sent") }
    client = connect
    client.set(key, "after")
    equal(client.get(key), "after")
    client.close
  }
}.freeze

run(
  SCENARIOS, title: "dalli (binary)", version: Dalli::VERSION,
  surface: Dalli::Client.public_instance_methods(false).map { |name| "Client.#{name}" }
)
