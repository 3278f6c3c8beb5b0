<?php
// What a PHP client's file is written with: the counterpart of harness.py, with the same report.
// Arguments: HOST PORT SECOND MUTE [SCENARIO...], as of child.py.

declare(strict_types=1);
error_reporting(E_ALL);

[, $host, $port, $second, $mute] = $argv;
$only = array_slice($argv, 5);
$calls = []; // of the scenario that runs, by `Class.method`
$stamp = dechex((int) (microtime(true) * 1e6));
$prefix = ""; // of the keys of the scenario that runs

// A client whose calls are counted by method.
class Counted
{
    public function __construct(public Memcached $target)
    {
    }

    public function __call(string $name, array $arguments): mixed
    {
        global $calls;
        $calls["Memcached.$name"] = ($calls["Memcached.$name"] ?? 0) + 1;
        return $this->target->$name(...$arguments);
    }
}

// Runs the scenarios, by name, and tells of each in a line. What of the surface nobody has called is missing.
function run(array $scenarios, string $title, array $surface = []): void
{
    global $calls, $only, $prefix, $stamp;
    $covered = [];
    foreach ($scenarios as $name => $scenario) {
        if ($only && !in_array($name, $only, true)) {
            continue;
        }
        $calls = [];
        $prefix = "$stamp:" . preg_replace("/[^a-z]+/", "_", $name);
        $started = microtime(true);
        $error = null;
        try {
            $scenario();
        } catch (Throwable $problem) {
            $error = get_class($problem) . ": {$problem->getMessage()} [line {$problem->getLine()}]";
        }
        $covered += $calls;
        echo json_encode([
            "scenario" => $name, "operations" => array_sum($calls), "seconds" => round(microtime(true) - $started, 3),
            "error" => $error,
        ], JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
    }
    ksort($covered);
    echo json_encode([
        "title" => $title, "version" => phpversion("memcached"), "covered" => array_keys($covered),
        "missing" => $only ? [] : array_values(array_diff($surface, array_keys($covered))),
    ]), "\n";
}
