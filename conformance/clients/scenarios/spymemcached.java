// Java's spymemcached in the binary protocol. Arguments and report are those of child.py.

import java.lang.reflect.Modifier;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import net.spy.memcached.CASResponse;
import net.spy.memcached.CASValue;
import net.spy.memcached.ConnectionFactoryBuilder;
import net.spy.memcached.DefaultHashAlgorithm;
import net.spy.memcached.FailureMode;
import net.spy.memcached.MemcachedClient;
import net.spy.memcached.OperationTimeoutException;
import net.spy.memcached.internal.OperationFuture;
import net.spy.memcached.transcoders.SerializingTranscoder;

class Scenarios {
    static final int LIMIT = 1024 * 1024;
    static final Set<String> NOT_OPERATIONS = Set.of( // they talk to no server
        "getAvailableServers", "getUnavailableServers", "getNodeLocator", "getTranscoder", "broadcastOp", "shutdown",
        "waitForQueues", "addObserver", "removeObserver", "connectionEstablished", "connectionLost", "getOperationTimeout",
        "getConnection", "getTranscoderService", "getExecutorService", "toString");

    static String host, prefix;
    static int port, second, mute;
    static Map<String, Integer> calls = new TreeMap<>();

    interface Scenario {
        void run() throws Exception;
    }

    /** A client whose calls are counted by method: `use` names each as it asks for the client. */
    static class Counted implements AutoCloseable {
        final MemcachedClient client;

        Counted(MemcachedClient client) {
            this.client = client;
        }

        MemcachedClient use(String operation) {
            calls.merge("MemcachedClient." + operation, 1, Integer::sum);
            return client;
        }

        public void close() {
            client.shutdown(5, TimeUnit.SECONDS);
        }
    }

    static Counted connect(int... ports) throws Exception {
        return connect(10_000, ports.length == 0 ? new int[] {port} : ports);
    }

    static Counted connect(int timeout, int[] ports) throws Exception {
        SerializingTranscoder transcoder = new SerializingTranscoder(10 * LIMIT);
        transcoder.setCompressionThreshold(Integer.MAX_VALUE);
        ConnectionFactoryBuilder builder = new ConnectionFactoryBuilder()
            .setProtocol(ConnectionFactoryBuilder.Protocol.BINARY)
            .setLocatorType(ConnectionFactoryBuilder.Locator.CONSISTENT)
            .setHashAlg(DefaultHashAlgorithm.KETAMA_HASH)
            .setFailureMode(FailureMode.Retry)
            .setTranscoder(transcoder)
            .setOpTimeout(timeout)
            .setDaemon(true);
        List<InetSocketAddress> servers = new ArrayList<>();
        for (int one : ports) {
            servers.add(new InetSocketAddress(host, one));
        }
        return new Counted(new MemcachedClient(builder.build(), servers));
    }

    static String key(Object part) {
        return prefix + ":" + part;
    }

    static void equal(Object actual, Object expected) {
        if (!java.util.Objects.deepEquals(actual, expected)) {
            throw new AssertionError("got " + shown(actual) + ", expected " + shown(expected));
        }
    }

    static String shown(Object value) {
        String text = value instanceof byte[] bytes ? bytes.length + " bytes" : String.valueOf(value);
        return text.substring(0, Math.min(200, text.length()));
    }

    static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    static void refused(Future<?> future, String text) throws Exception {
        try {
            check(!Boolean.TRUE.equals(future.get()), "stored, expected " + text);
            if (future instanceof OperationFuture<?> told) {
                check(told.getStatus().getMessage().contains(text), "status " + told.getStatus().getMessage());
            }
        } catch (ExecutionException error) {
            check(String.valueOf(error).contains(text), error + ", expected " + text);
        }
    }

    static void storage() throws Exception {
        for (int[] ports : new int[][] {{port}, {port, second}}) {
            try (Counted client = connect(ports)) {
                String name = key(ports.length);
                equal(client.use("get").get(name), null);
                equal(client.use("replace").replace(name, 0, "no").get(), false);
                equal(client.use("append").append(name, "no").get(), false);
                equal(client.use("prepend").prepend(name, "no").get(), false);
                equal(client.use("add").add(name, 0, "one").get(), true);
                equal(client.use("add").add(name, 0, "two").get(), false);
                equal(client.use("append").append(name, ">").get(), true);
                equal(client.use("prepend").prepend(name, "<").get(), true);
                equal(client.use("get").get(name), "<one>");
                equal(client.use("replace").replace(name, 0, "three").get(), true);
                equal(client.use("set").set(name, 0, "four").get(), true);
                equal(client.use("asyncGet").asyncGet(name).get(), "four");
                equal(client.use("delete").delete(name).get(), true);
                equal(client.use("delete").delete(name).get(), false);
            }
        }
    }

    static void compareAndSwap() throws Exception {
        try (Counted client = connect()) {
            client.use("set").set(key("k"), 0, "one").get();
            CASValue<Object> got = client.use("gets").gets(key("k"));
            equal(got.getValue(), "one");
            equal(client.use("cas").cas(key("k"), got.getCas(), "two"), CASResponse.OK);
            equal(client.use("cas").cas(key("k"), got.getCas(), "three"), CASResponse.EXISTS);
            equal(client.use("asyncCAS").asyncCAS(key("none"), got.getCas(), "x").get(), CASResponse.NOT_FOUND);
            equal(client.use("delete").delete(key("k"), got.getCas()).get(), false);
            got = client.use("asyncGets").asyncGets(key("k")).get();
            equal(client.use("append").append(got.getCas() + 1, key("k"), "no").get(), false);
            equal(client.use("append").append(got.getCas(), key("k"), "!").get(), true);
            equal(client.use("get").get(key("k")), "two!");
            long latest = client.use("gets").gets(key("k")).getCas();
            equal(client.use("delete").delete(key("k"), latest).get(), true);
        }
    }

    static void arithmetic() throws Exception {
        try (Counted client = connect()) {
            equal(client.use("incr").incr(key("n"), 5), -1L);
            equal(client.use("incr").incr(key("n"), 5, 10L), 10L);
            equal(client.use("incr").incr(key("n"), 5), 15L);
            equal(client.use("decr").decr(key("n"), 6), 9L);
            equal(client.use("decr").decr(key("n"), 60), 0L);
            equal(client.use("asyncIncr").asyncIncr(key("n"), 2).get(), 2L);
            equal(client.use("asyncDecr").asyncDecr(key("n"), 1).get(), 1L);
            client.use("set").set(key("n"), 0, "letters").get();
            refused(client.use("asyncIncr").asyncIncr(key("n"), 1), "Non-numeric");
            equal(client.use("get").get(key("n")), "letters");
        }
    }

    static void manyKeys() throws Exception {
        for (int[] ports : new int[][] {{port}, {port, second}}) {
            try (Counted client = connect(ports)) {
                Map<String, Object> values = IntStream.range(0, 1000).boxed()
                    .collect(Collectors.toMap(Scenarios::key, number -> "value " + number));
                List<Future<Boolean>> stored = new ArrayList<>();
                for (Map.Entry<String, Object> entry : values.entrySet()) {
                    stored.add(client.use("set").set(entry.getKey(), 0, entry.getValue()));
                }
                for (Future<Boolean> one : stored) {
                    equal(one.get(), true);
                }
                Set<String> asked = new HashSet<>(values.keySet());
                asked.add(key("none"));
                equal(client.use("getBulk").getBulk(asked), values);
                equal(client.use("asyncGetBulk").asyncGetBulk(asked).get(), values);
                List<Future<Object>> singly = new ArrayList<>();
                for (String name : values.keySet()) { // the client makes one getkq of gets that wait
                    singly.add(client.use("asyncGet").asyncGet(name));
                }
                int found = 0;
                for (Future<Object> one : singly) {
                    found += one.get() == null ? 0 : 1;
                }
                equal(found, 1000);
                List<Future<Boolean>> deleted = new ArrayList<>();
                for (String name : values.keySet()) {
                    deleted.add(client.use("delete").delete(name));
                }
                for (Future<Boolean> one : deleted) {
                    equal(one.get(), true);
                }
                equal(client.use("getBulk").getBulk(asked), Map.of());
            }
        }
    }

    static void valuesOfAllKindsAndSizes() throws Exception {
        try (Counted client = connect()) {
            for (Object value : List.of("naïve ☃", 12, 1L << 40, true, 1.5, new ArrayList<>(List.of(1, "two")))) {
                equal(client.use("set").set(key("k"), 0, value).get(), true);
                equal(client.use("get").get(key("k")), value);
            }
            Random random = new Random(1);
            for (int size : new int[] {0, 1, 100, 2048, 65_536, 524_288, LIMIT - 512}) {
                byte[] value = new byte[size];
                random.nextBytes(value);
                equal(client.use("set").set(key("k"), 0, value).get(), true);
                equal(client.use("get").get(key("k")), value);
            }
            String longest = key("").concat("k".repeat(250)).substring(0, 250);
            equal(client.use("set").set(longest, 0, "250").get(), true);
            equal(client.use("get").get(longest), "250");
        }
    }

    static void tooLargeAValue() throws Exception {
        try (Counted client = connect()) {
            client.use("set").set(key("k"), 0, "old").get();
            for (int size : new int[] {LIMIT, 3 * LIMIT}) {
                refused(client.use("set").set(key("k"), 0, new byte[size]), "Too large");
                equal(client.use("set").set(key("after"), 0, "after").get(), true);
                equal(client.use("get").get(key("after")), "after");
            }
            equal(client.use("get").get(key("k")), null);
        }
    }

    static void expiry() throws Exception {
        try (Counted client = connect()) {
            for (String part : List.of("second", "touched", "got", "got later")) {
                client.use("set").set(key(part.replace(' ', '-')), 3, "v").get();
            }
            equal(client.use("touch").touch(key("touched"), 100).get(), true);
            equal(client.use("touch").touch(key("none"), 100).get(), false);
            equal(client.use("getAndTouch").getAndTouch(key("got"), 100).getValue(), "v");
            equal(client.use("asyncGetAndTouch").asyncGetAndTouch(key("got-later"), 100).get().getValue(), "v");
            Thread.sleep(4200);
            Set<String> left = client.use("getBulk").getBulk(key("second"), key("touched"), key("got"), key("got-later")).keySet();
            equal(left, Set.of(key("touched"), key("got"), key("got-later")));
        }
    }

    static void administration() throws Exception {
        try (Counted client = connect()) {
            String version = client.use("getVersions").getVersions().values().iterator().next();
            check(version.matches("\\d+\\.\\d+\\.\\d+"), "version " + version);
            check(Long.parseLong(client.use("getStats").getStats().values().iterator().next().get("pid")) > 0, "pid");
            Map<String, String> settings = client.use("getStats").getStats("settings").values().iterator().next();
            equal(settings.get("item_size_max"), String.valueOf(LIMIT));
            client.use("listSaslMechanisms").listSaslMechanisms();
            client.use("set").set(key("k"), 0, "v").get();
            equal(client.use("flush").flush().get(), true);
            equal(client.use("get").get(key("k")), null);
        }
    }

    static void timeOut() throws Exception {
        try (Counted silent = connect(300, new int[] {mute})) {
            try {
                silent.use("get").get(key("k"));
                throw new AssertionError("an answer from where none comes");
            } catch (OperationTimeoutException expected) {
                // as it should be
            }
        }
        try (Counted client = connect()) {
            equal(client.use("set").set(key("k"), 0, "after").get(), true);
            equal(client.use("get").get(key("k")), "after");
        }
    }

    static String json(Object value) {
        if (value instanceof Map<?, ?> map) {
            return map.entrySet().stream().map(one -> json(one.getKey()) + ":" + json(one.getValue()))
                .collect(Collectors.joining(",", "{", "}"));
        }
        if (value instanceof Iterable<?> many) {
            List<String> parts = new ArrayList<>();
            many.forEach(one -> parts.add(json(one)));
            return "[" + String.join(",", parts) + "]";
        }
        if (value instanceof String text) {
            StringBuilder quoted = new StringBuilder("\"");
            for (char one : text.toCharArray()) {
                quoted.append(one < 32 || one > 126 || one == '"' || one == '\\' ? String.format("\\u%04x", (int) one) : one);
            }
            return quoted.append('"').toString();
        }
        return String.valueOf(value);
    }

    static void report(Object... pairs) {
        Map<String, Object> entry = new LinkedHashMap<>();
        for (int index = 0; index < pairs.length; index += 2) {
            entry.put((String) pairs[index], pairs[index + 1]);
        }
        System.out.println(json(entry));
        System.out.flush();
    }

    public static void main(String[] arguments) {
        System.setProperty("net.spy.log.LoggerImpl", "net.spy.memcached.compat.log.SunLogger");
        java.util.logging.Logger.getLogger("net.spy.memcached").setLevel(java.util.logging.Level.OFF);
        host = arguments[0];
        port = Integer.parseInt(arguments[1]);
        second = Integer.parseInt(arguments[2]);
        mute = Integer.parseInt(arguments[3]);
        Set<String> only = new HashSet<>(Arrays.asList(arguments).subList(4, arguments.length));
        Map<String, Scenario> scenarios = new LinkedHashMap<>();
        scenarios.put("storage", Scenarios::storage);
        scenarios.put("compare and swap", Scenarios::compareAndSwap);
        scenarios.put("arithmetic", Scenarios::arithmetic);
        scenarios.put("many keys", Scenarios::manyKeys);
        scenarios.put("values of all kinds and sizes", Scenarios::valuesOfAllKindsAndSizes);
        scenarios.put("too large a value leaves the connection in step", Scenarios::tooLargeAValue);
        scenarios.put("expiry", Scenarios::expiry);
        scenarios.put("administration", Scenarios::administration);
        scenarios.put("a time out in the middle", Scenarios::timeOut);
        String stamp = Long.toHexString(System.nanoTime());
        Set<String> covered = new TreeSet<>();
        scenarios.forEach((name, scenario) -> {
            if (!only.isEmpty() && !only.contains(name)) {
                return;
            }
            calls = new TreeMap<>();
            prefix = stamp + ":" + name.replace(' ', '_');
            long started = System.nanoTime();
            String error = null;
            try {
                scenario.run();
            } catch (Throwable problem) {
                String where = Arrays.stream(problem.getStackTrace()).filter(frame -> frame.getClassName().equals("Scenarios")
                    && !Set.of("equal", "check", "refused").contains(frame.getMethodName()))
                    .findFirst().map(frame -> " [line " + frame.getLineNumber() + "]").orElse("");
                error = problem + where;
            }
            covered.addAll(calls.keySet());
            report("scenario", name, "operations", calls.values().stream().mapToInt(Integer::intValue).sum(),
                "seconds", (System.nanoTime() - started) / 1_000_000 / 1000.0, "error", error);
        });
        Set<String> missing = Arrays.stream(MemcachedClient.class.getDeclaredMethods())
            .filter(method -> Modifier.isPublic(method.getModifiers()) && !NOT_OPERATIONS.contains(method.getName()))
            .map(method -> "MemcachedClient." + method.getName()).collect(Collectors.toCollection(TreeSet::new));
        missing.removeAll(covered);
        report("title", "spymemcached (binary)", "version", version(), "covered", covered,
            "missing", only.isEmpty() ? missing : Set.of());
        System.exit(0);
    }

    /** Debian's number: its file of the library names none. */
    static String version() {
        try {
            Process asked = new ProcessBuilder("dpkg-query", "-W", "-f", "${Version}", "libspymemcached-java").start();
            return new String(asked.getInputStream().readAllBytes()).replaceAll("\\+.*", "");
        } catch (java.io.IOException error) {
            return "";
        }
    }
}
