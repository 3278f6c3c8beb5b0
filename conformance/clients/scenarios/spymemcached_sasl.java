// Java's spymemcached, which logs in by SASL. Arguments and report are those of child.py.

import java.net.InetSocketAddress;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import net.spy.memcached.ConnectionFactoryBuilder;
import net.spy.memcached.FailureMode;
import net.spy.memcached.MemcachedClient;
import net.spy.memcached.auth.AuthDescriptor;
import net.spy.memcached.auth.PlainCallbackHandler;

class Logins {
    static String host;
    static int port, calls;

    interface Scenario {
        void run() throws Exception;
    }

    static MemcachedClient connect(String password, int timeout) throws Exception {
        ConnectionFactoryBuilder builder = new ConnectionFactoryBuilder()
            .setProtocol(ConnectionFactoryBuilder.Protocol.BINARY)
            .setAuthDescriptor(new AuthDescriptor(new String[] {"PLAIN"}, new PlainCallbackHandler("alice", password)))
            .setFailureMode(FailureMode.Cancel)
            .setOpTimeout(timeout)
            .setDaemon(true);
        return new MemcachedClient(builder.build(), List.of(new InetSocketAddress(host, port)));
    }

    static void login() throws Exception {
        MemcachedClient client = connect("secret", 10_000);
        String key = Long.toHexString(System.nanoTime());
        calls += 3;
        if (!client.set(key, 0, "value").get(10, TimeUnit.SECONDS) || !"value".equals(client.get(key))
            || !Map.of(key, "value").equals(client.getBulk(key, "none"))) {
            throw new IllegalStateException("another value");
        }
        client.shutdown(5, TimeUnit.SECONDS);
    }

    static void wrongPassword() throws Exception {
        MemcachedClient client = connect("wrong", 3_000);
        calls++;
        try {
            client.get("key");
        } catch (RuntimeException refused) { // cancelled, or no answer in time: it tries again and again
            client.shutdown();
            return;
        }
        throw new IllegalStateException("the server took it");
    }

    static String quoted(Object value) {
        return value == null ? "null" : "\"" + value.toString().replaceAll("[\"\\\\\n\t]", " ") + "\"";
    }

    public static void main(String[] arguments) throws Exception {
        System.setProperty("net.spy.log.LoggerImpl", "net.spy.memcached.compat.log.SunLogger");
        java.util.logging.Logger.getLogger("net.spy.memcached").setLevel(java.util.logging.Level.OFF);
        host = arguments[0];
        port = Integer.parseInt(arguments[1]);
        List<String> only = Arrays.asList(arguments).subList(4, arguments.length);
        Map<String, Scenario> scenarios = new LinkedHashMap<>();
        scenarios.put("a login", Logins::login);
        scenarios.put("a wrong password", Logins::wrongPassword);
        scenarios.forEach((name, scenario) -> {
            if (!only.isEmpty() && !only.contains(name)) {
                return;
            }
            calls = 0;
            long started = System.nanoTime();
            String error = null;
            try {
                scenario.run();
            } catch (Throwable problem) {
                error = problem.toString();
            }
            System.out.printf("{\"scenario\": %s, \"operations\": %d, \"seconds\": %d, \"error\": %s}%n", quoted(name), calls,
                TimeUnit.NANOSECONDS.toSeconds(System.nanoTime() - started), quoted(error));
        });
        System.out.printf("{\"title\": \"spymemcached (SASL)\", \"version\": %s, \"covered\": [\"MemcachedClient.get\", "
            + "\"MemcachedClient.getBulk\", \"MemcachedClient.set\"], \"missing\": []}%n", quoted(version()));
        System.exit(0);
    }

    /** Debian's number: its file of the library names none. */
    static String version() throws Exception {
        Process asked = new ProcessBuilder("dpkg-query", "-W", "-f", "${Version}", "libspymemcached-java").start();
        return new String(asked.getInputStream().readAllBytes()).replaceAll("\\+.*", "");
    }
}
