// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"testing"

	"github.com/spf13/pflag"
)

// Flags say what the document of the runtime specification says.
func TestUpdateFlags(t *testing.T) {
	for flags, want := range map[[2]string]string{
		{"--memory", "1g"}:              `{"memory":{"limit":1073741824},"cpu":{},"pids":{},"blockIO":{}}`,
		{"--memory", "-1"}:              `{"memory":{"limit":-1},"cpu":{},"pids":{},"blockIO":{}}`,
		{"--memory-swap", "2MiB"}:       `{"memory":{"swap":2097152},"cpu":{},"pids":{},"blockIO":{}}`,
		{"--memory-reservation", "5"}:   `{"memory":{"reservation":5},"cpu":{},"pids":{},"blockIO":{}}`,
		{"--cpu-share", "7"}:            `{"memory":{},"cpu":{"shares":7},"pids":{},"blockIO":{}}`,
		{"--cpu-quota", "-1"}:           `{"memory":{},"cpu":{"quota":-1},"pids":{},"blockIO":{}}`,
		{"--cpu-period", "9"}:           `{"memory":{},"cpu":{"period":9},"pids":{},"blockIO":{}}`,
		{"--cpuset-cpus", "0-1"}:        `{"memory":{},"cpu":{"cpus":"0-1"},"pids":{},"blockIO":{}}`,
		{"--cpuset-mems", "0"}:          `{"memory":{},"cpu":{"mems":"0"},"pids":{},"blockIO":{}}`,
		{"--cpu-idle", "1"}:             `{"memory":{},"cpu":{"idle":1},"pids":{},"blockIO":{}}`,
		{"--cpu-burst", "3"}:            `{"memory":{},"cpu":{"burst":3},"pids":{},"blockIO":{}}`,
		{"--cpu-rt-period", "3"}:        `{"memory":{},"cpu":{"realtimePeriod":3},"pids":{},"blockIO":{}}`,
		{"--cpu-rt-runtime", "3"}:       `{"memory":{},"cpu":{"realtimeRuntime":3},"pids":{},"blockIO":{}}`,
		{"--blkio-weight", "300"}:       `{"memory":{},"cpu":{},"pids":{},"blockIO":{"weight":300}}`,
		{"--pids-limit", "12"}:          `{"memory":{},"cpu":{},"pids":{"limit":12},"blockIO":{}}`,
		{"--blkio-weight", "70000"}:     `--blkio-weight: "70000": is out of range`,
		{"--cpu-share", "x"}:            `--cpu-share: "x": is not a number`,
		{"--memory", "99999999999999t"}: `--memory: "99999999999999t": write a number with k, m, g or nothing after it`,
	} {
		f := pflag.NewFlagSet("update", pflag.ContinueOnError)
		values := map[string]*string{}
		for _, u := range updates() {
			values[u.flag] = f.String(u.flag, "", u.text)
		}
		if err := f.Parse(flags[:]); err != nil {
			t.Errorf("%v: %v", flags, err)
			continue
		}
		r, err := resources("", values)
		got, _ := json.Marshal(r)
		if err != nil {
			got = []byte(err.Error())
		}
		if string(got) != want {
			t.Errorf("%v: %s, want %s", flags, got, want)
		}
	}
}
