#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""java: many threads, compiled code pages, a garbage collector at work."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import main, need, same_files, sh, start, test, undisturbed, write

JOB = r'''
import java.io.FileWriter;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;

public class Job {
    static String hex(byte[] bytes) {
        StringBuilder text = new StringBuilder();
        for (byte b : bytes) text.append(String.format("%02x", b));
        return text.toString();
    }
    static byte[] chain(int round, int worker) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] value = (round + "/" + worker).getBytes();
        List<byte[]> garbage = new ArrayList<>();
        double waste = 0;
        for (int i = 0; i < 6000; i++) {
            value = digest.digest(value);
            garbage.add(value.clone());
            waste += Math.sqrt(value[0] * value[0] + i);
            if (garbage.size() > 1000) garbage.clear();
        }
        return (hex(value) + String.format(Locale.ROOT, "%.6f", waste)).getBytes();
    }
    public static void main(String[] words) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(6);
        MessageDigest total = MessageDigest.getInstance("SHA-256");
        try (FileWriter log = new FileWriter("log", true)) {
            for (int round = 0; round < 150; round++) {
                List<Future<byte[]>> answers = new ArrayList<>();
                for (int worker = 0; worker < 6; worker++) {
                    final int r = round, w = worker;
                    answers.add(pool.submit(() -> chain(r, w)));
                }
                for (Future<byte[]> answer : answers) total.update(answer.get());
                log.write("round " + round + "\n");
                log.flush();
                while (round == 110 && !new java.io.File("finish").exists()) Thread.sleep(10);
            }
        }
        pool.shutdown();
        System.out.println(hex(total.digest()) + " " + pool.awaitTermination(10, TimeUnit.SECONDS));
    }
}
'''


@test("java with threads, compiled code and garbage ends with the same digest", timeout=240)
def java():
    need("java", "javac")
    write("Job.java", JOB)
    sh("javac", "Job.java")
    command = ["java", "-Xmx256m", "-cp", "..", "Job"]
    reference = undisturbed(command)
    program = start(command, "job")
    for count in (20, 60):
        program.wait_lines(count, "log")
        program.round_trip()
    program.finish()
    same_files(program, reference, "out", "log", "err")


if __name__ == "__main__":
    main()
