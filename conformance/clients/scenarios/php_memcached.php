<?php
// PHP's memcached extension (libmemcached inside), in both protocols, and PHP's sessions on it.

declare(strict_types=1);
require __DIR__ . "/../harness.php";
ini_set("memory_limit", "256M");
set_error_handler(function (int $kind, string $text): bool {
    throw new ErrorException($text, 0, $kind);
});

const LIMIT = 1024 * 1024;
const NOT_OPERATIONS = [ // they talk to no server
    "__construct", "getResultCode", "getResultMessage", "getLastErrorMessage", "getLastErrorCode", "getLastErrorErrno",
    "getLastDisconnectedServer", "addServer", "addServers", "getServerList", "getServerByKey", "resetServerList", "getOption",
    "setOption", "setOptions", "setBucket", "setSaslAuthData", "setEncodingKey", "isPersistent", "isPristine", "checkKey",
];

function connect(bool $binary, array $options = [], ?array $servers = null): Counted
{
    global $host, $port;
    $client = new Memcached();
    $client->setOptions($options + [
        Memcached::OPT_BINARY_PROTOCOL => $binary, Memcached::OPT_POLL_TIMEOUT => 10000, Memcached::OPT_TCP_NODELAY => true,
    ]);
    $client->addServers($servers ?? [[$host, (int) $port]]);
    return new Counted($client);
}

function both(bool $binary): Counted
{
    global $host, $port, $second;
    return connect($binary, [Memcached::OPT_LIBKETAMA_COMPATIBLE => true], [[$host, (int) $port], ["127.0.0.1", (int) $second]]);
}

function key_of(string|int $part = "k"): string
{
    global $prefix;
    return "$prefix:$part";
}

function shown(mixed $value): string
{
    return substr(var_export($value, true), 0, 200);
}

function equal(mixed $actual, mixed $expected, string $what = ""): void
{
    if ($actual !== $expected) {
        throw new Exception(($what ?: "line " . debug_backtrace()[0]["line"]) . ": got " . shown($actual) . ", expected " . shown($expected));
    }
}

function result(Counted $client, int $code): void
{
    if ($client->target->getResultCode() !== $code) {
        $line = debug_backtrace()[0]["line"];
        throw new Exception("line $line: result {$client->target->getResultMessage()}, expected code $code");
    }
}

// All 256 byte values, line ends and the protocol's own words.
function everything(): string
{
    return implode("", array_map("chr", range(0, 255))) . "\r\nEND\r\nSTORED\r\nVALUE x 0 1\r\n\r\n";
}

function values(int $count): array
{
    $values = [];
    foreach (range(1, $count) as $number) {
        $values[key_of($number)] = str_repeat((string) $number, 5);
    }
    return $values;
}

// Several servers answer in any order.
function in_order(array $values): array
{
    ksort($values);
    return $values;
}

function storage(Counted $client): void
{
    $key = key_of(bin2hex(random_bytes(4)));
    equal($client->get($key), false);
    result($client, Memcached::RES_NOTFOUND);
    equal($client->replace($key, "no"), false);
    $client->target->setOption(Memcached::OPT_COMPRESSION, false);
    equal($client->append($key, "no"), false);
    equal($client->prepend($key, "no"), false);
    result($client, Memcached::RES_NOTSTORED);
    equal($client->add($key, "one"), true);
    equal($client->add($key, "two"), false);
    equal($client->append($key, ">"), true);
    equal($client->prepend($key, "<"), true);
    equal($client->get($key), "<one>");
    equal($client->replace($key, ["a" => [1, 2.5, null, true]]), true);
    equal($client->get($key), ["a" => [1, 2.5, null, true]]);
    equal($client->set($key, 12), true);
    equal($client->get($key), 12);
    equal($client->delete($key), true);
    equal($client->delete($key), false);
    result($client, Memcached::RES_NOTFOUND);
    equal($client->get($key, fn ($cache, $key, &$value) => (bool) ($value = "made")), "made");
    equal($client->get($key), "made");
}

function by_server_key(Counted $client): void
{
    $key = key_of("by key");
    $key = str_replace(" ", "-", $key);
    equal($client->setByKey("server", $key, "one"), true);
    equal($client->addByKey("server", $key, "two"), false);
    equal($client->replaceByKey("server", $key, "10"), true);
    $client->target->setOption(Memcached::OPT_COMPRESSION, false);
    equal($client->appendByKey("server", $key, "0"), true);
    equal($client->prependByKey("server", $key, "1"), true);
    equal($client->getByKey("server", $key), "1100");
    equal($client->incrementByKey("server", $key, 5), 1105);
    equal($client->decrementByKey("server", $key, 5), 1100);
    equal($client->touchByKey("server", $key, 100), true);
    $got = $client->getByKey("server", $key, null, Memcached::GET_EXTENDED);
    equal($client->casByKey($got["cas"], "server", $key, "swapped"), true);
    equal($client->casByKey($got["cas"], "server", $key, "again"), false);
    equal($client->setMultiByKey("server", values(20)), true);
    equal(in_order($client->getMultiByKey("server", array_keys(values(20)))), in_order(values(20)));
    equal($client->getDelayedByKey("server", array_keys(values(20))), true);
    equal(count($client->fetchAll()), 20);
    equal($client->deleteMultiByKey("server", array_keys(values(20))), array_fill_keys(array_keys(values(20)), true));
    equal($client->deleteByKey("server", $key), true);
}

function compare_and_swap(Counted $client): void
{
    $client->set(key_of(), "one");
    $got = $client->get(key_of(), null, Memcached::GET_EXTENDED);
    equal($got["value"], "one");
    equal($client->cas($got["cas"], key_of(), "two"), true);
    equal($client->cas($got["cas"], key_of(), "three"), false);
    result($client, Memcached::RES_DATA_EXISTS);
    equal($client->get(key_of()), "two");
    $client->delete(key_of());
    equal($client->cas($got["cas"], key_of(), "three"), false);
    result($client, Memcached::RES_NOTFOUND);
}

function arithmetic(Counted $client, bool $binary): void
{
    $key = key_of("n");
    equal($client->increment($key), false);
    result($client, Memcached::RES_NOTFOUND);
    if ($binary) {
        equal($client->increment($key, 5, 10), 10);
    } else {
        $client->set($key, "10");
    }
    equal($client->increment($key, 5), 15);
    equal($client->decrement($key, 6), 9);
    equal($client->decrement($key, 60), 0);
    $client->set($key, "letters");
    try {
        equal($client->increment($key), false);
    } catch (ErrorException) {
    }
    equal($client->get($key), "letters");
}

function many_keys(Counted $client): void
{
    $values = values(1000);
    equal($client->setMulti($values), true);
    $asked = [...array_keys($values), key_of("none")];
    equal(in_order($client->getMulti($asked)), in_order($values));
    equal(array_keys($client->getMulti($asked, Memcached::GET_PRESERVE_ORDER)), $asked);
    equal($client->getDelayed(array_keys($values), true), true);
    $first = $client->fetch();
    equal(isset($values[$first["key"]], $first["cas"]), true);
    equal(count($client->fetchAll()), 999);
    equal($client->fetch(), false);
    $deleted = $client->deleteMulti($asked);
    equal($deleted[key_of("1")], true);
    equal($deleted[key_of("none")], Memcached::RES_NOTFOUND);
    equal($client->getMulti($asked), []);
}

function sizes(Counted $client): void
{
    $client->target->setOption(Memcached::OPT_COMPRESSION, false);
    foreach ([0, 1, 100, 2048, 65536, 524288, LIMIT - 512] as $size) {
        $value = substr(str_repeat(everything(), intdiv($size, 200) + 1), 0, $size);
        equal($client->set(key_of(), $value), true, "$size bytes");
        equal($client->get(key_of()) === $value, true, "$size bytes");
    }
    foreach ([LIMIT, 3 * LIMIT] as $size) {
        equal($client->set(key_of(), str_repeat("x", $size)), false);
        result($client, Memcached::RES_E2BIG);
        equal($client->set(key_of("after"), "after"), true);
        equal($client->get(key_of("after")), "after");
    }
    $longest = str_pad(key_of(), 250, "k");
    equal($client->set($longest, "250"), true);
    equal($client->get($longest), "250");
    $client->target->setOption(Memcached::OPT_COMPRESSION, true);
    foreach ([Memcached::COMPRESSION_FASTLZ, Memcached::COMPRESSION_ZLIB] as $kind) {
        $client->target->setOption(Memcached::OPT_COMPRESSION_TYPE, $kind);
        equal($client->set(key_of(), str_repeat("ab", LIMIT)), true);
        equal($client->get(key_of()) === str_repeat("ab", LIMIT), true);
    }
}

function expiry(Counted $client): void
{
    $client->set(key_of("second"), "v", 3);
    $client->set(key_of("touched"), "v", 3);
    $client->set(key_of("absolute"), "v", time() + 100);
    equal($client->touch(key_of("touched"), 100), true);
    equal($client->touch(key_of("none"), 100), false);
    usleep(4200000);
    $left = [key_of("touched") => "v", key_of("absolute") => "v"];
    equal(in_order($client->getMulti([key_of("second"), ...array_keys($left)])), in_order($left));
}

function buffered(bool $binary): void
{
    $client = connect($binary, [Memcached::OPT_BUFFER_WRITES => true, Memcached::OPT_NO_BLOCK => true]);
    foreach (values(500) as $key => $value) {
        $client->set($key, $value);
    }
    equal($client->flushBuffers(), true);
    equal(in_order($client->getMulti(array_keys(values(500)))), in_order(values(500)));
    $silent = connect($binary, [Memcached::OPT_NOREPLY => true]);
    foreach (array_keys(values(500)) as $key) {
        $silent->delete($key);
    }
    equal($silent->get(key_of(500)), false);
    equal($client->getMulti(array_keys(values(499))), []);
}

function administration(Counted $client, bool $binary): void
{
    $versions = $client->getVersion();
    equal(preg_match('/^\d+\.\d+\.\d+$/', reset($versions)), 1, "version");
    $figures = $client->getStats();
    equal((int) reset($figures)["pid"] > 0, true, "pid");
    $settings = $client->getStats("settings");
    equal((int) reset($settings)["item_size_max"], LIMIT);
    $client->set(key_of(), "v");
    if (!$binary) { // by stats cachedump
        $client->getAllKeys();
    }
    equal($client->flush(100), true);
    equal($client->get(key_of()), "v", "a delayed flush keeps the item for now");
    equal($client->flush(), true);
    equal($client->get(key_of()), false);
    $client->set(key_of(), "v");
    equal($client->quit(), true);
    equal($client->get(key_of()), "v");
}

function time_out(bool $binary): void
{
    global $mute;
    $silent = connect($binary, [Memcached::OPT_POLL_TIMEOUT => 300, Memcached::OPT_RECV_TIMEOUT => 300000], [["127.0.0.1", (int) $mute]]);
    equal($silent->set(key_of(), "sent"), false);
    result($silent, Memcached::RES_TIMEOUT);
    $client = connect($binary);
    for ($ends = microtime(true) + 10; $client->get(key_of()) !== "sent" && microtime(true) < $ends;) {
        usleep(50000);
    }
    equal($client->get(key_of()), "sent");
}

// One request of a web page, in a process of its own, which has begun.
function begun(string $code, array $settings, ?array &$pipes): mixed
{
    $command = [PHP_BINARY, "-d", "session.save_handler=memcached", "-d", "session.use_cookies=0", "-d", "session.cache_limiter="];
    foreach ($settings as $name => $value) {
        array_push($command, "-d", "$name=$value");
    }
    return proc_open([...$command, "-r", $code], [1 => ["pipe", "w"], 2 => ["pipe", "w"]], $pipes);
}

// What a page prints.
function page(string $code, array $settings): string
{
    $process = begun($code, $settings, $pipes);
    $told = stream_get_contents($pipes[1]) . stream_get_contents($pipes[2]);
    proc_close($process);
    return trim($told);
}

function sessions(bool $binary): void
{
    global $host, $port, $second, $calls;
    $settings = [
        "session.save_path" => "$host:$port,127.0.0.1:$second",
        "memcached.sess_binary_protocol" => $binary ? "On" : "Off",
        "memcached.sess_prefix" => str_replace(" ", "-", key_of()) . ".",
    ];
    $id = bin2hex(random_bytes(16));
    $visit = "session_id('$id'); session_start(); \$_SESSION['n'] = (\$_SESSION['n'] ?? 0) + 1; echo \$_SESSION['n'];";
    foreach (["1", "2", "3"] as $count) {
        $calls["session_start"] = ($calls["session_start"] ?? 0) + 1;
        equal(page($visit, $settings), $count);
    }
    // A page that is open has the lock: another waits for its end, and sees what it wrote.
    $slow = "session_id('$id'); session_start(); echo 'open'; flush(); usleep(400000); \$_SESSION['n'] = 10;";
    $process = begun($slow, $settings, $pipes);
    fread($pipes[1], 4);
    equal(page($visit, ["memcached.sess_lock_retries" => "100"] + $settings), "11", "a session that was locked");
    proc_close($process);
    equal(page("session_id('$id'); session_start(); session_destroy(); echo 'gone';", $settings), "gone");
    equal(page($visit, $settings), "1");
    equal(page("session_id('$id'); session_start(); session_regenerate_id(true); echo \$_SESSION['n'];", $settings), "1");
    equal(page($visit, $settings), "1", "a session under its old name");
}

$scenarios = [];
foreach (["text" => false, "binary" => true] as $protocol => $binary) {
    $scenarios += [
        "storage, $protocol" => fn () => [storage(connect($binary)), storage(both($binary))],
        "by a server's key, $protocol" => fn () => by_server_key(both($binary)),
        "compare and swap, $protocol" => fn () => compare_and_swap(connect($binary)),
        "arithmetic, $protocol" => fn () => arithmetic(connect($binary), $binary),
        "many keys, $protocol" => fn () => [many_keys(connect($binary)), many_keys(both($binary))],
        "values and keys at their limits, $protocol" => fn () => sizes(connect($binary)),
        "expiry, $protocol" => fn () => expiry(connect($binary)),
        "buffered and silent writes, $protocol" => fn () => buffered($binary),
        "administration, $protocol" => fn () => administration(connect($binary), $binary),
        "a time out in the middle, $protocol" => fn () => time_out($binary),
        "sessions, $protocol" => fn () => sessions($binary),
    ];
}

run(
    $scenarios,
    "php-memcached and PHP's sessions (text, binary)",
    array_map(fn ($name) => "Memcached.$name", array_diff(get_class_methods("Memcached"), NOT_OPERATIONS)),
);
