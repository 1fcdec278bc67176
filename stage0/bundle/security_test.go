// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"slices"
	"strings"
	"testing"
)

func TestSELinuxContexts(t *testing.T) {
	for opts, want := range map[string][2]string{
		"label=type:spc_t":                      {"system_u:system_r:spc_t:s0", "system_u:object_r:container_file_t:s0"},
		"label=level:s0:c1,c2":                  {"system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"},
		"label=user:u label=role:r":             {"u:r:container_t:s0", "u:object_r:container_file_t:s0"},
		"label=filetype:x_t label:type:spc_t":   {"system_u:system_r:spc_t:s0", "system_u:object_r:x_t:s0"},
		"label=disable":                         {"", ""},
		"apparmor=unconfined seccomp=default":   {"", ""},
		"label=disable apparmor=gantry-default": {"", ""},
	} {
		in := input(Options{SecurityOpt: strings.Fields(opts)})
		in.Host.SELinux = true
		in.Host.Labels = Labels{AppArmor: true, Profiles: []string{"gantry-default"}, Process: "system_u:system_r:container_t:s0", File: "system_u:object_r:container_file_t:s0"}
		r, err := Spec(in)
		if err != nil {
			t.Errorf("%s: %v", opts, err)
			continue
		}
		if got := [2]string{r.Spec.Process.SelinuxLabel, r.Spec.Linux.MountLabel}; got != want {
			t.Errorf("%s: %q, want %q", opts, got, want)
		}
		if p := r.Spec.Process.ApparmorProfile; (p == "gantry-default") != strings.Contains(opts, "gantry-default") {
			t.Errorf("%s: AppArmor's profile is %q", opts, p)
		}
	}
}

func TestSecurityOptions(t *testing.T) {
	r, err := Spec(input(Options{SecurityOpt: []string{"systempaths=unconfined", "mask=/a:/b", "proc-opts=hidepid=2,subset=pid"}}))
	if err != nil || !slices.Equal(r.Spec.Linux.MaskedPaths, []string{"/a", "/b"}) || r.Spec.Linux.ReadonlyPaths != nil {
		t.Fatalf("%v, %v", r, err)
	}
	if o := r.Spec.Mounts[0].Options; !slices.Equal(o[len(o)-2:], []string{"hidepid=2", "subset=pid"}) {
		t.Errorf("/proc: %q", o)
	}
	r, err = Spec(input(Options{SecurityOpt: []string{"mask=/a", "unmask=/proc/*:/a"}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range slices.Concat(r.Spec.Linux.MaskedPaths, r.Spec.Linux.ReadonlyPaths) {
		if !strings.HasPrefix(p, "/sys/") {
			t.Errorf("unmask=/proc/*:/a: %s is kept", p)
		}
	}
	for opt, want := range map[string]string{
		"apparmor=x":       "AppArmor is off",
		"label=type:x":     "SELinux is off",
		"label=nested":     "does not label",
		"label=x":          "write label=disable",
		"label=type:a:b":   "has no colon",
		"label=":           "is not supported",
		"proc-opts=rw":     "is none of",
		"proc-opts=gid=x":  "is none of",
		"systempaths=none": "is not supported",
		"mask=rel":         "not an absolute path",
		"mask=/a:/":        "the root cannot be masked",
		"unmask=/proc/1":   "/proc/1 is neither masked nor read-only",
	} {
		refused(t, input(Options{SecurityOpt: []string{opt}}), want)
	}
	in := input(Options{SecurityOpt: []string{"apparmor=x"}})
	in.Host.Labels.AppArmor = true
	refused(t, in, "no such profile loaded")
	in = input(Options{SecurityOpt: []string{"label=disable", "label=type:x"}})
	in.Host.SELinux = true
	refused(t, in, "contradict")
}

// TestGHSA_6fw5_f8r9_fgfm_ThrottlesAreMasked: how hot a processor is tells what
// others compute on it.
func TestGHSA_6fw5_f8r9_fgfm_ThrottlesAreMasked(t *testing.T) {
	throttles := []string{FirstThrottle, "/sys/devices/system/cpu/cpu1/thermal_throttle"}
	masked := func(opts Options) (n int) {
		t.Helper()
		in := input(opts)
		in.Host.Throttles = throttles
		r, err := Spec(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range throttles {
			if slices.Contains(r.Spec.Linux.MaskedPaths, p) {
				n++
			}
		}
		return n
	}
	const all = "unmask=/sys/devices/system/cpu/*/thermal_throttle"
	for what, c := range map[string]struct {
		opts Options
		want int
	}{
		"by default":   {Options{}, 2},
		"all paths":    {Options{SecurityOpt: []string{"systempaths=unconfined"}}, 0},
		"all unmasked": {Options{SecurityOpt: []string{all}}, 0},
		"one unmasked": {Options{SecurityOpt: []string{"unmask=" + throttles[1]}}, 1},
	} {
		if n := masked(c.opts); n != c.want {
			t.Errorf("%s: %d of 2 are masked, want %d", what, n, c.want)
		}
	}
	if _, err := Spec(input(Options{SecurityOpt: []string{all}})); err != nil {
		t.Errorf("unmasked where no processor has any: %v", err)
	}
}
