#!/usr/bin/perl
# Cache::Memcached::Fast (Perl, C inside): batches of every command, silent writes by void context, gat and gats.
# Arguments and report are those of child.py.

use strict;
use warnings;
use Cache::Memcached::Fast;
use JSON::PP;
use Time::HiRes qw(sleep time);

use constant LIMIT => 1024 * 1024;

my ($host, $port, $second, $mute, @only) = @ARGV;
my $json = JSON::PP->new->canonical->allow_nonref;
my $stamp = sprintf "%x", time * 1e6;
my (%calls, $prefix);

# A client whose calls are counted by method, in the caller's context: void context means noreply.
package Counted {
    our $AUTOLOAD;
    sub new { my ($class, $target) = @_; return bless { target => $target }, $class }
    sub DESTROY { }
    sub AUTOLOAD {
        my $self = shift;
        (my $name = $AUTOLOAD) =~ s/.*:://;
        $calls{"Client.$name"}++;
        return $self->{target}->$name(@_);
    }
}

sub client {
    my %options = @_;
    my $target = Cache::Memcached::Fast->new({
        servers => ["$host:$port"], io_timeout => 10, connect_timeout => 10, %options });
    return Counted->new($target);
}

sub key { my $part = shift // "k"; return "$prefix:$part" }

sub equal {
    my ($actual, $expected, $what) = @_;
    my ($got, $wanted) = map { $json->encode($_) } $actual, $expected;
    return if $got eq $wanted;
    die sprintf "%s: got %.200s, expected %.200s\n", $what // "line " . (caller)[2], $got, $wanted;
}

sub check { my ($condition, $what) = @_; die "$what\n" unless $condition }

my $everything = join("", map { chr } 0 .. 255) . "\r\nEND\r\nSTORED\r\nVALUE x 0 1\r\n\r\n";

my @scenarios = (
    "storage" => sub {
        for my $client (client(), client(servers => ["$host:$port", "127.0.0.1:$second"], ketama_points => 150)) {
            my $key = key();
            equal($client->get($key), undef);
            check(!$client->replace($key, "no"), "replace of a missing key");
            check(!$client->append($key, "no"), "append to a missing key");
            check(!$client->prepend($key, "no"), "prepend to a missing key");
            check($client->add($key, "one"), "add");
            check(!$client->add($key, "two"), "add of a key that is there");
            check($client->append($key, ">"), "append");
            check($client->prepend($key, "<"), "prepend");
            equal($client->get($key), "<one>");
            check($client->replace($key, "three"), "replace");
            check($client->set($key, "four"), "set");
            equal($client->get($key), "four");
            check($client->delete($key), "delete");
            check(!$client->delete($key), "delete of a missing key");
            check(!$client->remove($key), "remove of a missing key");
        }
    },

    "compare and swap" => sub {
        my $client = client();
        $client->set(key(), "one");
        my ($unique, $value) = @{ $client->gets(key()) };
        equal($value, "one");
        check($client->cas(key(), $unique, "two"), "cas with the right unique");
        check(!$client->cas(key(), $unique, "three"), "cas with an old unique");
        equal($client->get(key()), "two");
        equal($client->gets(key("none")), undef);
        $client->set(key($_), $_) for 1 .. 20;
        my $found = $client->gets_multi(map { key($_) } 1 .. 21);
        equal(scalar(keys %$found), 20);
        my $done = $client->cas_multi(map { [key($_), $found->{ key($_) }[0], "new$_"] } 1 .. 20);
        check($done->{ key($_) }, "cas_multi of $_") for 1 .. 20;
        equal($client->get(key(7)), "new7");
    },

    "arithmetic" => sub {
        my $client = client();
        check(!$client->incr(key()), "incr of a missing key");
        $client->set(key(), 10);
        equal($client->incr(key()) + 0, 11);
        equal($client->incr(key(), 9) + 0, 20);
        equal($client->decr(key(), 15) + 0, 5);
        equal($client->decr(key(), 6) + 0, 0);
        check(defined $client->decr(key()), "zero is an answer");
        $client->set(key(), "letters");
        check(!$client->incr(key()), "incr of letters");
        equal($client->get(key()), "letters");
        $client->set(key($_), $_) for 1 .. 20;
        my $up = $client->incr_multi(map { [key($_), 5] } 1 .. 21);
        equal([map { $up->{ key($_) } + 0 } 1 .. 20], [6 .. 25]);
        my $down = $client->decr_multi(map { key($_) } 1 .. 20);
        equal([map { $down->{ key($_) } + 0 } 1 .. 20], [5 .. 24]);
    },

    "many keys" => sub {
        for my $client (client(), client(servers => ["$host:$port", "127.0.0.1:$second"])) {
            my @keys = map { key($_) } 0 .. 999;
            my $done = $client->set_multi(map { [$_, $_ x 4] } @keys);
            equal(scalar(grep { $_ } values %$done), 1000);
            my $found = $client->get_multi(@keys, key("none"));
            equal($found, { map { $_ => $_ x 4 } @keys });
            $client->delete_multi(@keys);
            equal($client->get_multi(@keys), {});
            equal(scalar(grep { $_ } values %{ $client->add_multi(map { [$_, "a"] } @keys) }), 1000);
            equal(scalar(grep { $_ } values %{ $client->add_multi(map { [$_, "b"] } @keys) }), 0);
            $client->append_multi(map { [$_, ">"] } @keys);
            $client->prepend_multi(map { [$_, "<"] } @keys);
            equal($client->get_multi(@keys), { map { $_ => "<a>" } @keys });
            equal(scalar(grep { $_ } values %{ $client->replace_multi(map { [$_, "r"] } @keys) }), 1000);
            equal($client->get($keys[-1]), "r");
            $client->delete_multi(@keys);
        }
    },

    "values" => sub {
        my $client = client(utf8 => 1);
        for my $value ("", $everything, $everything x 100, "na\x{ef}ve \x{2603}", "12") {
            check($client->set(key(), $value), "set");
            equal($client->get(key()), $value);
        }
        $client->set(key(), { a => [1, undef] });
        equal($client->get(key()), { a => [1, undef] });
        for my $size (1, 2048, 16384, 65536, 524288, LIMIT - 512) {
            check($client->set(key(), "x" x $size), "set of $size bytes");
            check($client->get(key()) eq "x" x $size, "get of $size bytes");
        }
    },

    "too large a value leaves the connection in step" => sub {
        my $client = client(max_size => 10 * LIMIT, max_failures => 0);
        $client->set(key(), "old");
        for my $size (LIMIT, LIMIT + 1, 3 * LIMIT) {
            check(!$client->set(key(), "x" x $size), "set of $size bytes");
            check($client->set(key("after"), $size), "set after a refused one");
            equal($client->get(key("after")) + 0, $size);
        }
        equal($client->get(key()), undef);
    },

    "keys at their limits" => sub {
        my $client = client();
        my $longest = key("k") . "k" x (250 - length key("k"));
        check($client->set($longest, "250"), "set of a key of 250 bytes");
        equal($client->get($longest), "250");
        my $prefixed = client(namespace => "prefix:");
        check($prefixed->set(key(), "v"), "set under a namespace");
        equal($client->get("prefix:" . key()), "v");
    },

    "expiry" => sub {
        my $client = client();
        $client->set(key($_), "v", 3) for qw(second touched a b c d e f);
        $client->set(key("past"), "v", -1);
        equal($client->get(key("past")), undef);
        check($client->touch(key("touched"), 100), "touch");
        check(!$client->touch(key("none"), 100), "touch of a missing key");
        equal($client->gat(100, key("a")), "v");
        equal($client->gats(100, key("b"))->[1], "v");
        equal($client->gat_multi(100, key("c"), key("none")), { key("c") => "v" });
        equal([keys %{ $client->gats_multi(100, key("d")) }], [key("d")]);
        $client->touch_multi([key("e"), 100]);
        sleep 4.2;
        my $left = $client->get_multi(map { key($_) } qw(second touched a b c d e f));
        equal([sort keys %$left], [sort map { key($_) } qw(touched a b c d e)]);
    },

    "silent commands in a pipeline" => sub {
        my $client = client(nowait => 1);
        my $key = key();
        $client->set($key, $_) for 1 .. 300;
        $client->append($key, "0");
        $client->prepend($key, "1");
        $client->incr($key, 5);
        $client->decr($key, 1);
        $client->add($key, "no");
        $client->touch($key, 100);
        $client->set_multi(map { [key($_), $_] } 1 .. 500);
        $client->delete(key(500));
        $client->nowait_push;
        my $value = $client->get($key);
        equal($value + 0, 13004);
        my $found = $client->get_multi(map { key($_) } 1 .. 500);
        equal(scalar(keys %$found), 499);
    },

    "administration" => sub {
        my $client = client();
        my ($version) = values %{ $client->server_versions };
        check($version =~ /^\d+\.\d+\.\d+$/, "version $version");
        $client->set(key(), "v");
        my $done = $client->flush_all(100);
        equal($client->get(key()), "v", "a delayed flush keeps the item for now");
        $done = $client->flush_all;
        check((values %$done)[0], "flush_all");
        equal($client->get(key()), undef);
        $client->set(key(), "v");
        $client->disconnect_all;
        equal($client->get(key()), "v");
    },

    "a time out in the middle" => sub {
        my $silent = client(servers => ["127.0.0.1:$mute"], io_timeout => 0.3);
        my $done = $silent->set(key(), "sent");
        equal($done, undef);
        my $client = client();
        my $ends = time + 10;
        sleep 0.05 while !$client->get(key()) && time < $ends;
        equal($client->get(key()), "sent");
    },
);

my %not_operations = map { $_ => 1 } qw(CLONE DESTROY bootstrap enable_compress namespace new retrieve store);
my %covered;
$| = 1;
while (my ($name, $scenario) = splice @scenarios, 0, 2) {
    next if @only and !grep { $_ eq $name } @only;
    %calls = ();
    ($prefix = "$stamp:$name") =~ s/ /_/g;
    my $started = time;
    local $SIG{ALRM} = sub { die "no end after 120 s\n" };
    alarm 120;
    my $error = eval { $scenario->(); 1 } ? undef : $@;
    alarm 0;
    chomp $error if defined $error;
    $covered{$_} = 1 for keys %calls;
    my $operations = 0;
    $operations += $_ for values %calls;
    print $json->encode({ scenario => $name, operations => $operations, seconds => time - $started, error => $error }), "\n";
}
my @surface = do {
    no strict "refs";
    grep { defined &{"Cache::Memcached::Fast::$_"} and !/^_/ and !$not_operations{$_} } keys %Cache::Memcached::Fast::;
};
my @missing = grep { !$covered{$_} } map { "Client.$_" } sort @surface;
print $json->encode({
    title => "Cache::Memcached::Fast", version => "$Cache::Memcached::Fast::VERSION", covered => [sort keys %covered], missing => @only ? [] : \@missing }), "\n";
