<?php
// PHP's memcached extension (libmemcached inside), which logs in by SASL.

declare(strict_types=1);
require __DIR__ . "/../harness.php";

function connect(string $password): Counted
{
    global $host, $port;
    $client = new Memcached();
    $client->setOptions([Memcached::OPT_BINARY_PROTOCOL => true, Memcached::OPT_POLL_TIMEOUT => 10000]);
    $client->setSaslAuthData("alice", $password);
    $client->addServer($host, (int) $port);
    return new Counted($client);
}

function expect(Counted $client, mixed $answer, mixed $expected, int $code = Memcached::RES_SUCCESS): void
{
    if ($answer !== $expected || $client->target->getResultCode() !== $code) {
        throw new Exception("got " . json_encode($answer) . ", {$client->target->getResultMessage()}");
    }
}

run([
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
], "php-memcached (SASL)");
