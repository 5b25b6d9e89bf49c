// The side that uses the mutex of etcd's Go client. All goroutines share one client and one session. measure.py
// describes the arguments.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const (
	// After this time, the warm-up no longer waits until there are as many pairs as workers.
	longestWarmUp = 5 * time.Second
	pause         = 20 * time.Millisecond
	module        = "go.etcd.io/etcd/client/v3"
)

func main() {
	if err := measure(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measure(arguments []string) error {
	if len(arguments) != 7 {
		return fmt.Errorf("it takes 7 arguments, not %d", len(arguments))
	}
	host, port, keys, prefix := arguments[0], arguments[1], arguments[2], arguments[3]
	workers, err := strconv.Atoi(arguments[4])
	if err != nil {
		return err
	}
	warm, err := duration(arguments[5])
	if err != nil {
		return err
	}
	window, err := duration(arguments[6])
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{host + ":" + port}, DialTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	session, err := concurrency.NewSession(client, concurrency.WithTTL(33))
	if err != nil {
		return err
	}

	var pairs atomic.Int64
	failed := make(chan error, workers)
	for worker := 0; worker < workers; worker++ {
		key := prefix + "/one"
		if keys == "own" {
			key = fmt.Sprintf("%s/%d", prefix, worker)
		}
		go func() {
			mutex := concurrency.NewMutex(session, key)
			for {
				if err := mutex.Lock(context.Background()); err != nil {
					failed <- err
					return
				}
				if err := mutex.Unlock(context.Background()); err != nil {
					failed <- err
					return
				}
				pairs.Add(1)
			}
		}()
	}

	started := time.Now()
	ticks := time.NewTicker(pause)
	for {
		warmed := time.Since(started)
		if warmed >= warm && (pairs.Load() >= int64(workers) || warmed >= longestWarmUp) {
			break
		}
		select {
		case err := <-failed:
			return err
		case <-ticks.C:
		}
	}
	began, before := time.Now(), pairs.Load()
	select {
	case err := <-failed:
		return err
	case <-time.After(window):
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"version": version(),
		"pairs":   pairs.Load() - before,
		"seconds": time.Since(began).Seconds(),
	})
}

func duration(seconds string) (time.Duration, error) {
	number, err := strconv.ParseFloat(seconds, 64)
	return time.Duration(number * float64(time.Second)), err
}

// version returns the version of etcd's client in this program, and the version of Go.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return dependency.Version + ", " + runtime.Version()
			}
		}
	}
	return runtime.Version()
}
