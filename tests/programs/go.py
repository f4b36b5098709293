#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A Go program: threads by raw clone, its own scheduler, preemption by signals."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os

from cairn_test import BUILD, main, need, same_files, sh, start, test, undisturbed, write

JOB = r'''
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

func chain(worker int, out chan<- [32]byte) {
	value := sha256.Sum256([]byte{byte(worker)})
	for {
		waste := make([][]byte, 0)
		for i := 0; i < 3000; i++ {
			value = sha256.Sum256(value[:])
			waste = append(waste, value[:])
		}
		out <- value
	}
}

func main() {
	runtime.GOMAXPROCS(4)
	log, _ := os.OpenFile("log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0644)
	outs := make([]chan [32]byte, 8)
	for i := range outs {
		outs[i] = make(chan [32]byte)
		go chain(i, outs[i])
	}
	ticks := 0
	var lock sync.Mutex
	go func() {
		for range time.Tick(2 * time.Millisecond) {
			lock.Lock()
			ticks++
			lock.Unlock()
		}
	}()
	total := sha256.New()
	for round := 0; round < 250; round++ {
		for _, out := range outs {
			value := <-out
			total.Write(value[:])
		}
		fmt.Fprintf(log, "round %d\n", round)
		for round == 180 {
			if _, err := os.Stat("finish"); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	lock.Lock()
	defer lock.Unlock()
	fmt.Printf("%x %v\n", total.Sum(nil), ticks > 10)
}
'''


@test("a Go program with goroutines on several threads ends with the same digest", timeout=300)
def go():
    need("go")
    write("job.go", JOB)
    # An ordinary user's is his own: root's may not be there yet.
    cache = BUILD / "go-cache" if os.access(BUILD, os.W_OK) else pathlib.Path("go-cache").resolve()
    sh("go", "build", "-o", "job.bin", "job.go",
       env={**os.environ, "GOCACHE": str(cache), "GOFLAGS": "-mod=mod", "GO111MODULE": "off", "CGO_ENABLED": "0"})
    reference = undisturbed(["../job.bin"])
    program = start(["../job.bin"], "job")
    for count in (40, 90):
        program.wait_lines(count, "log")
        program.round_trip()
    program.finish()
    same_files(program, reference, "out", "log", "err")


if __name__ == "__main__":
    main()
