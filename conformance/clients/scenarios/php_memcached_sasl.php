<?php
// PHP's memcached extension (libmemcached inside), which logs in by SASL. Arguments and report are those of child.py.

declare(strict_types=1);
error_reporting(E_ALL);

[, $host, $port] = $argv;
$only = array_slice($argv, 5);
$calls = 0;
$stamp = dechex((int) (microtime(true) * 1e6));

function connect(string $password): Memcached
{
    global $host, $port;
    $client = new Memcached();
    $client->setOptions([Memcached::OPT_BINARY_PROTOCOL => true, Memcached::OPT_POLL_TIMEOUT => 10000]);
    $client->setSaslAuthData("alice", $password);
    $client->addServer($host, (int) $port);
    return $client;
}

function expect(Memcached $client, mixed $answer, mixed $expected, int $code = Memcached::RES_SUCCESS): void
{
    global $calls;
    $calls++;
    if ($answer !== $expected || $client->getResultCode() !== $code) {
        throw new Exception("got " . json_encode($answer) . ", {$client->getResultMessage()}");
    }
}

$scenarios = [
    "a login" => function () use ($stamp) {
        $client = connect("secret");
        expect($client, $client->set($stamp, "value"), true);
        expect($client, $client->get($stamp), "value");
        expect($client, $client->getMulti([$stamp, "none"]), [$stamp => "value"]);
    },
    "a wrong password" => function () use ($stamp) {
        $client = connect("wrong");
        expect($client, $client->get($stamp), false, Memcached::RES_AUTH_FAILURE);
    },
];
foreach ($scenarios as $name => $scenario) {
    if ($only && !in_array($name, $only, true)) {
        continue;
    }
    $calls = 0;
    $started = microtime(true);
    $error = null;
    try {
        $scenario();
    } catch (Throwable $problem) {
        $error = get_class($problem) . ": {$problem->getMessage()} [line {$problem->getLine()}]";
    }
    echo json_encode([
        "scenario" => $name, "operations" => $calls, "seconds" => round(microtime(true) - $started, 3), "error" => $error,
    ], JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}
echo json_encode([
    "title" => "php-memcached (SASL)", "version" => phpversion("memcached"),
    "covered" => ["Memcached.get", "Memcached.getMulti", "Memcached.set"], "missing" => [],
]), "\n";
