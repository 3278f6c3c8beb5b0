# What a Ruby client's file is written with: the counterpart of harness.py, with the same report.
# Arguments: HOST PORT SECOND MUTE [SCENARIO...], as of child.py.

require "json"
require "timeout"

HOST, PORT, SECOND, MUTE, *ONLY = ARGV
STAMP = Process.clock_gettime(Process::CLOCK_REALTIME, :nanosecond).to_s(16)
CALLS = Hash.new(0) # of the scenario that runs, by `Class.method`

# Runs the scenarios, lambdas by name, each within so many seconds, and tells of each in a line. What of the surface nobody has
# called is missing. $prefix begins the keys of the scenario that runs.
def run(scenarios, title:, version:, surface: [], seconds: 120)
  report = $stdout.dup
  report.sync = true
  $stdout.reopen($stderr)
  covered = {}
  scenarios.each do |name, scenario|
    next unless ONLY.empty? || ONLY.include?(name)

    CALLS.clear
    $prefix = "#{STAMP}:#{name.gsub(/[ ']/, "_")}"
    started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    error = nil
    begin
      Timeout.timeout(seconds, SystemExit, "no end after #{seconds} s") { scenario.call }
    rescue StandardError, LoadError, SystemExit => e
      error = "#{e.class}: #{e.message}"
    end
    CALLS.each_key { |operation| covered[operation] = true }
    report.puts JSON.generate(
      scenario: name, operations: CALLS.values.sum, error: error,
      seconds: (Process.clock_gettime(Process::CLOCK_MONOTONIC) - started).round(3)
    )
  end
  report.puts JSON.generate(
    title: title, version: version, covered: covered.keys.sort,
    missing: ONLY.empty? ? (surface - covered.keys).sort : []
  )
end
