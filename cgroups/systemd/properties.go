// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// File is a control file with its value; that of package cgroups.
type File struct{ Name, Value string }

// kinds are the properties that stand for control files, with how their values
// are read and the systemd that knows them first. What is not here is written
// into the group, where systemd does not look for it.
var kinds = map[string]struct {
	property string
	read     func(string) (value, error)
	since    int
}{
	"memory.max":      {"MemoryMax", number, 231},
	"memory.low":      {"MemoryLow", number, 231},
	"memory.high":     {"MemoryHigh", number, 231},
	"memory.min":      {"MemoryMin", number, 240},
	"memory.swap.max": {"MemorySwapMax", number, 232},
	"cpu.weight":      {"CPUWeight", number, 232},
	"pids.max":        {"TasksMax", number, 227},
	"cpuset.cpus":     {"AllowedCPUs", bits, 244},
	"cpuset.mems":     {"AllowedMemoryNodes", bits, 244},
	"io.weight":       {"IOWeight", weight, 230},

	"memory.limit_in_bytes": {"MemoryLimit", number, 0},
	"cpu.shares":            {"CPUShares", number, 0},
	"blkio.weight":          {"BlockIOWeight", number, 0},
}

// Names are the control files that have a property.
func Names() []string {
	names := []string{"cpu.max", "cpu.idle"}
	for name := range kinds {
		names = append(names, name)
	}
	return names
}

// Resources says control files in systemd's properties (systemd.resource-control(5)),
// so that it does not undo them when it writes its own again.
func Resources(files []File, version int) ([]Property, error) {
	var out []Property
	idle := false
	for _, f := range files {
		idle = idle || f.Name == "cpu.idle" && f.Value == "1" && version >= 252
	}
	for _, f := range files {
		if f.Name == "cpu.max" {
			quota, err := cpuQuota(f.Value, version)
			if err != nil {
				return nil, err
			}
			out = append(out, quota...)
			continue
		}
		kind, known := kinds[f.Name]
		if !known || version < kind.since || idle && f.Name == "cpu.weight" {
			continue
		}
		v, err := kind.read(f.Value)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", f.Name, f.Value, err)
		}
		if v != nil {
			out = append(out, Property{kind.property, v})
		}
	}
	if idle {
		out = append(out, Property{"CPUWeight", uint64(0)})
	}
	return out, nil
}

// number reads bytes or tasks; none is the largest. A negative one, as cgroup
// v1 has it, is none too.
func number(s string) (value, error) {
	if s == "max" || strings.HasPrefix(s, "-") {
		return uint64(math.MaxUint64), nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err
}

// weight passes over the lines of single devices.
func weight(s string) (value, error) {
	first, _, _ := strings.Cut(s, "\n")
	first = strings.TrimPrefix(first, "default ")
	if strings.Contains(first, " ") {
		return nil, nil
	}
	return number(first)
}

// maxList is more processors than any kernel has.
const maxList = 1 << 16

// bits is a list like 0-2,4 as systemd wants it: bit n of byte n/8.
func bits(list string) (value, error) {
	var out []byte
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		if part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 32)
		if err != nil {
			return nil, err
		}
		last, err := strconv.ParseUint(to, 10, 32)
		if err != nil {
			return nil, err
		}
		if last >= maxList || first > last {
			return nil, fmt.Errorf("%q is no range", part)
		}
		for n := first; n <= last; n++ {
			for uint64(len(out)) <= n/8 {
				out = append(out, 0)
			}
			out[n/8] |= 1 << (n % 8)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// cpuQuota is cpu.max as time per second. Systemd counts in hundredths of a
// processor and would round down, below what was asked.
func cpuQuota(s string, version int) ([]Property, error) {
	words := strings.Fields(s)
	if len(words) == 1 {
		words = append(words, "100000")
	}
	if len(words) != 2 {
		return nil, fmt.Errorf("cpu.max %q: is not a quota and a period", s)
	}
	period, err := strconv.ParseUint(words[1], 10, 32)
	if err != nil || period == 0 {
		return nil, fmt.Errorf("cpu.max %q: its period is none", s)
	}
	var out []Property
	if version >= 242 {
		out = append(out, Property{"CPUQuotaPeriodUSec", period})
	}
	if words[0] == "max" {
		return append(out, Property{"CPUQuotaPerSecUSec", uint64(math.MaxUint64)}), nil
	}
	quota, err := strconv.ParseUint(words[0], 10, 44)
	if err != nil {
		return nil, fmt.Errorf("cpu.max %q: its quota is none", s)
	}
	const second, percent = 1_000_000, 10_000
	perSecond := (quota*second/period + percent - 1) / percent * percent
	return append(out, Property{"CPUQuotaPerSecUSec", perSecond}), nil
}

// annotation is what bundles call properties of their unit.
const annotation = "org.systemd.property."

// allowed are the properties a bundle may set, with their types: how its unit
// is stopped and what it waits for. Any other could run a command, change the
// unit's limits or its place: annotations of an image reach a bundle more
// easily than that (CVE-2024-3154).
var allowed = map[string]string{
	"TimeoutStopUSec": "t", "KillSignal": "i", "FinalKillSignal": "i", "KillMode": "s", "SendSIGKILL": "b", "SendSIGHUP": "b",
	"CollectMode": "s", "OOMPolicy": "s", "DefaultDependencies": "b", "After": "as", "Before": "as", "Description": "s",
}

// Annotated reads the properties of a bundle's annotations.
func Annotated(annotations map[string]string) ([]Property, error) {
	var out []Property
	for _, key := range sortedKeys(annotations) {
		name, ok := strings.CutPrefix(key, annotation)
		if !ok {
			continue
		}
		text, seconds := annotations[key], false
		if short, ok := strings.CutSuffix(name, "Sec"); ok && allowed[name] == "" {
			name, seconds = short+"USec", true
		}
		kind := allowed[name]
		if kind == "" {
			return nil, fmt.Errorf("annotations[%q]: a bundle may not set this property; it may set %s", key, strings.Join(sortedKeys(allowed), ", "))
		}
		v, err := variant(kind, text)
		if err != nil {
			return nil, fmt.Errorf("annotations[%q]: %w", key, err)
		}
		if n, ok := v.(uint64); ok && seconds {
			if n > math.MaxUint64/1_000_000 {
				return nil, fmt.Errorf("annotations[%q]: %s is out of range", key, text)
			}
			v = n * 1_000_000
		}
		out = append(out, Property{name, v})
	}
	return out, nil
}

// variant reads a value of a known type from GVariant's text form.
func variant(kind, text string) (value, error) {
	text = strings.TrimSpace(text)
	word := map[string]string{"t": "uint64", "i": "int32", "b": "boolean", "s": "string", "as": "@as"}[kind]
	text = strings.TrimSpace(strings.TrimPrefix(text, word+" "))
	switch kind {
	case "t":
		n, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number: write uint64 10000000", text)
		}
		return n, nil
	case "i":
		n, err := strconv.ParseInt(text, 0, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", text)
		}
		return int32(n), nil
	case "b":
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%q is neither true nor false", text)
		}
		return text == "true", nil
	case "s":
		return quoted(text)
	}
	if !strings.HasPrefix(text, "[") || !strings.HasSuffix(text, "]") || len(text) < 2 {
		return nil, fmt.Errorf("%q is not a list: write ['a', 'b']", text)
	}
	inside := text[1 : len(text)-1]
	list := []string{}
	for item := range strings.SplitSeq(inside, ",") {
		if strings.TrimSpace(inside) == "" {
			break
		}
		s, err := quoted(strings.TrimSpace(item))
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// quoted reads a string without escapes: no property here needs any.
func quoted(text string) (string, error) {
	if n := len(text); n >= 2 && (text[0] == '\'' || text[0] == '"') && text[n-1] == text[0] {
		if s := text[1 : n-1]; !strings.ContainsAny(s, "\\'\"\x00\n") && len(s) < 1000 {
			return s, nil
		}
	}
	return "", fmt.Errorf("%q is not a string: write 'text'", text)
}
