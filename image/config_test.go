// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// config returns a document with these members inside of its config.
func config(members string) []byte {
	return []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + sha256A + `"]},"config":{` + members + `}}`)
}

func TestParseConfig(t *testing.T) {
	doc := config(`"User":"1000:100","Env":["PATH=/usr/bin:/bin","EMPTY=","TABS=a\tb","EQ=a=b"],"Entrypoint":["/bin/sh","-c"],
		"Cmd":["echo a\necho b"],"WorkingDir":"/srv","Volumes":{"/data":{}},"ExposedPorts":{"80":{},"53/udp":{},"1-2/tcp":{}},
		"Labels":{"any\n":"\u001b[2J"},"StopSignal":"SIGRTMIN+3","Healthcheck":{"Test":["NONE"]},"OnBuild":null`)
	c, err := ParseConfig(doc, 1)
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.User != "1000:100" || len(c.Config.Env) != 4 || c.Config.Cmd[0] != "echo a\necho b" || c.Architecture != "amd64" {
		t.Errorf("got %+v", c)
	}
	if _, err := ParseConfig([]byte(strings.Replace(string(config(``)), `"config":{}`, `"config":null,"container_config":{"env":["X"]}`, 1)), -1); err != nil {
		t.Errorf("what Docker writes beside it: %v", err)
	}
}

func TestParseConfig_refuses(t *testing.T) {
	good := string(config(`"User":"root"`))
	for name, c := range map[string]struct {
		doc  string
		says string
	}{
		"not json":            {"x", "not a JSON object"},
		"trailing":            {good + "x", "data after the end"},
		"no os":               {strings.Replace(good, `"os":"linux",`, "", 1), "os: \"\" is not"},
		"odd os":              {strings.Replace(good, "linux", "li nux", 1), "os: \"li nux\""},
		"no architecture":     {strings.Replace(good, `"architecture":"amd64",`, "", 1), "architecture"},
		"odd variant":         {strings.Replace(good, `"os"`, `"variant":"V8\n","os"`, 1), "variant"},
		"rootfs type":         {strings.Replace(good, `"layers"`, `"layer"`, 1), "rootfs: type"},
		"diff ID":             {strings.Replace(good, sha256A, "sha256:x", 1), "rootfs: diff_ids[0]"},
		"too many diff IDs":   {strings.Replace(good, `"`+sha256A+`"`, `"`+sha256A+`","`+sha256B+`"`, 1), "diff_ids: 2 of them for 1 layers"},
		"too few diff IDs":    {strings.Replace(good, `"`+sha256A+`"`, ``, 1), "diff_ids: 0 of them for 1 layers"},
		"two users":           {string(config(`"User":"a","User":"root"`)), `config: member "User" appears twice`},
		"user":                {string(config(`"User":"a","user":"root"`)), "could be taken for it"},
		"User as a number":    {string(config(`"User":0`)), "decode JSON"},
		"NUL in Cmd":          {string(config(`"Cmd":["a\u0000b"]`)), "Cmd[0]: NUL"},
		"NUL in Entrypoint":   {string(config(`"Entrypoint":["a","\u0000"]`)), "Entrypoint[1]: NUL"},
		"long argument":       {string(config(`"Cmd":["` + strings.Repeat("a", maxString+1) + `"]`)), "Cmd[0]: 131072 bytes"},
		"many arguments":      {string(config(`"Cmd":[` + strings.Repeat(`"",`, maxList) + `""]`)), "Cmd: 4097 entries"},
		"relative directory":  {string(config(`"WorkingDir":"srv"`)), "WorkingDir: \"srv\" is not absolute"},
		"control in it":       {string(config(`"WorkingDir":"/a\nb"`)), "WorkingDir: \"/a\\nb\" has a control"},
		"long directory":      {string(config(`"WorkingDir":"/` + strings.Repeat("a", 4095) + `"`)), "longer than 4095"},
		"relative volume":     {string(config(`"Volumes":{"data":{}}`)), "Volumes: \"data\" is not absolute"},
		"root as volume":      {string(config(`"Volumes":{"/a/..":{}}`)), "whole root"},
		"port 0":              {string(config(`"ExposedPorts":{"0/tcp":{}}`)), "ExposedPorts: \"0/tcp\""},
		"port 65536":          {string(config(`"ExposedPorts":{"65536":{}}`)), "is not a port"},
		"backward range":      {string(config(`"ExposedPorts":{"2-1":{}}`)), "is not a port"},
		"protocol":            {string(config(`"ExposedPorts":{"1/icmp":{}}`)), "is not a port"},
		"signal":              {string(config(`"StopSignal":"SIG TERM"`)), "StopSignal"},
		"signal 65":           {string(config(`"StopSignal":"65"`)), "1 to 64"},
		"signal 0":            {string(config(`"StopSignal":"0"`)), "1 to 64"},
		"created":             {strings.Replace(good, `"os"`, `"created":"now","os"`, 1), "decode JSON"},
		"empty variable name": {string(config(`"Env":["=x"]`)), "Env[0]: \"=x\" has no name"},
		"NUL in a variable":   {string(config(`"Env":["A=\u0000"]`)), "Env[0]: A: control character"},
		"long variable":       {string(config(`"Env":["A=` + strings.Repeat("a", maxString) + `"]`)), "Env[0]: \"A\": 131073 bytes"},
		"many variables":      {string(config(`"Env":[` + strings.Repeat(`"A=",`, maxList) + `"A="]`)), "Env: 4097 entries"},
		"space in its name":   {string(config(`"Env":["A B=c"]`)), "Env[0]: name"},
	} {
		_, err := ParseConfig([]byte(c.doc), 1)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// podman took an entry without a value, or with a wildcard, from the host.
func TestCVE_2026_57231_imageCannotAskForVariablesOfTheHost(t *testing.T) {
	for _, e := range []string{"AWS_SECRET_ACCESS_KEY", "*", "AWS_*", "AWS_*=", "A?=x", ""} {
		if _, err := ParseConfig(config(fmt.Sprintf(`"Env":[%q]`, e)), 1); err == nil || !strings.Contains(err.Error(), "Env[0]") {
			t.Errorf("%q: %v", e, err)
		}
	}
}

// A line break in HOME wrote a line of /etc/passwd.
func TestCVE_2022_4318_controlCharactersInAccountFieldsAreRefused(t *testing.T) {
	for _, key := range []string{"HOME", "USER", "LOGNAME", "SHELL", "PATH"} {
		for _, value := range []string{`/\nevil:x:0:0::/:/bin/sh`, `a\rb`, `a\tb`, `\u001b[2J`, `a\u0085b`, `a\u2028b`, `a\u007f`} {
			if _, err := ParseConfig(config(`"Env":["`+key+`=`+value+`"]`), 1); err == nil || !strings.Contains(err.Error(), "Env[0]: "+key) {
				t.Errorf("%s=%s: %v", key, value, err)
			}
		}
	}
	for _, user := range []string{`root\nx`, `a\u0000`, `a b`, `\t`, `a\u2028b`, `a/b`, `a,b`} {
		if _, err := ParseConfig(config(`"User":"`+user+`"`), 1); err == nil || !strings.Contains(err.Error(), "User") {
			t.Errorf("User %s: %v", user, err)
		}
	}
}

// A line break in any variable wrote a line of a configuration.
func TestCVE_2026_23953_lineBreaksInVariablesAreRefused(t *testing.T) {
	for _, e := range []string{`A=b\nlxc.hook=x`, `A=b\rc`, `A\n=b`, `A=\u0000`, `A=\u2028`} {
		if _, err := ParseConfig(config(`"Env":["`+e+`"]`), 1); err == nil || !strings.Contains(err.Error(), "Env[0]") {
			t.Errorf("%s: %v", e, err)
		}
	}
}

// A user number beyond 32 bits became root.
func TestCVE_2024_40635_userNumbersAreInRange(t *testing.T) {
	for _, user := range []string{"4294967295", "4294967296", "2147483648000", "99999999999999999999999", "-1", "+0", "0:4294967296", "0:-1", "1:2:3", ":", "1:", ":1"} {
		if _, err := ParseConfig(config(`"User":"`+user+`"`), 1); err == nil || !strings.Contains(err.Error(), "User") {
			t.Errorf("User %s: %v", user, err)
		}
	}
	for _, user := range []string{"", "0", "4294967294", "1000:4294967294", "nobody", "www-data:www-data", "user.name", "a:0", "007"} {
		if _, err := ParseConfig(config(`"User":"`+user+`"`), 1); err != nil {
			t.Errorf("User %s: %v", user, err)
		}
	}
}

// A label reached a logger that runs programs on the host. Here labels, history
// and unknown members change nothing that a launch reads.
func TestCVE_2026_53488_labelsAreOnlyData(t *testing.T) {
	plain, err := ParseConfig(config(`"User":"1"`), 1)
	if err != nil {
		t.Fatal(err)
	}
	labelled, err := ParseConfig(config(`"User":"1","Labels":{"containerd.io/restart.loguri":"binary:///bin/sh","io.gantry.user":"0"},
		"Privileged":true,"Runtime":"/bin/sh"`), 1)
	if err != nil {
		t.Fatal(err)
	}
	labelled.Config.Labels = nil
	a, _ := json.Marshal(plain)
	b, _ := json.Marshal(labelled)
	if string(a) != string(b) {
		t.Errorf("labels changed %s to %s", a, b)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(config(`"User":"1000:100","Env":["A=b"],"Cmd":["x"],"WorkingDir":"/","StopSignal":"15"`), 1)
	f.Add(config(`"Env":["HOME=/\n"]`), -1)
	f.Add([]byte(`{"os":"linux"}`), 0)
	f.Fuzz(func(t *testing.T, b []byte, layers int) {
		c, err := ParseConfig(b, layers)
		if err != nil {
			return
		}
		if layers >= 0 && len(c.RootFS.DiffIDs) != layers {
			t.Fatalf("%d diff IDs for %d layers", len(c.RootFS.DiffIDs), layers)
		}
		for _, e := range c.Config.Env {
			if strings.IndexByte(e, '=') < 1 || strings.ContainsAny(e, "\n\r\x00") {
				t.Fatalf("accepted variable %q", e)
			}
		}
		if strings.ContainsAny(c.Config.User+c.Config.WorkingDir+c.Config.StopSignal, "\n\r\x00\t") {
			t.Fatalf("accepted %+v", c.Config)
		}
		again, err := json.Marshal(c)
		if err != nil {
			return // a year that RFC 3339 cannot write
		}
		if _, err := ParseConfig(again, layers); err != nil && len(again) <= MaxConfig {
			t.Fatalf("round trip: %v", err)
		}
	})
}

func TestParsePlatform(t *testing.T) {
	for typed, want := range map[string]string{
		"linux/amd64": "linux/amd64", "amd64": "linux/amd64", "linux": FormatPlatform(HostPlatform()), "linux/x86_64": "linux/amd64", "linux/amd64/v1": "linux/amd64",
		"linux/amd64/v3": "linux/amd64/v3", "arm64": "linux/arm64/v8", "aarch64": "linux/arm64/v8", "linux/arm": "linux/arm/v7",
		"linux/arm/6": "linux/arm/v6", "armhf": "linux/arm/v7", "armel": "linux/arm/v6", "i386": "linux/386", "windows/amd64": "windows/amd64",
	} {
		p, err := ParsePlatform(typed)
		if err != nil || FormatPlatform(p) != want {
			t.Errorf("ParsePlatform(%q) = %q, %v, want %q", typed, FormatPlatform(p), err, want)
		}
		if again, err := ParsePlatform(FormatPlatform(p)); err != nil || FormatPlatform(again) != want {
			t.Errorf("%q does not read back: %v", FormatPlatform(p), err)
		}
	}
	for _, bad := range []string{"", "/", "linux/", "/amd64", "a/b/c/d", "Linux/amd64", "linux/am d", "linux/a\n"} {
		if _, err := ParsePlatform(bad); err == nil || !strings.Contains(err.Error(), quote(bad)) {
			t.Errorf("ParsePlatform(%q): %v", bad, err)
		}
	}
}

func TestSelect(t *testing.T) {
	index := func(platforms ...string) ispec.Index {
		var x ispec.Index
		for _, p := range platforms {
			d := ispec.Descriptor{MediaType: ociType, Digest: digest.FromString(p)}
			if p == "attestation" {
				d.Platform = &ispec.Platform{OS: "unknown", Architecture: "unknown"}
			} else if p != "none" {
				parts := strings.Split(p+"//", "/")
				d.Platform = &ispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
			}
			x.Manifests = append(x.Manifests, d)
		}
		return x
	}
	for _, c := range []struct {
		have []string
		want string
		got  string
	}{
		{[]string{"linux/arm64", "linux/amd64", "attestation"}, "linux/amd64", "linux/amd64"},
		{[]string{"linux/amd64/v3", "linux/amd64"}, "linux/amd64", "linux/amd64"},
		{[]string{"linux/amd64/v3", "linux/amd64/v2", "linux/amd64"}, "linux/amd64/v2", "linux/amd64/v2"},
		{[]string{"linux/amd64/v3", "linux/amd64/v2", "linux/amd64"}, "linux/amd64/v4", "linux/amd64/v3"},
		{[]string{"linux/amd64/v3"}, "linux/amd64", ""},
		{[]string{"linux/arm/v5", "linux/arm/v6"}, "linux/arm/v7", "linux/arm/v6"},
		{[]string{"linux/arm/v7"}, "linux/arm/v6", ""},
		{[]string{"linux/arm64/v8"}, "linux/arm64", "linux/arm64/v8"},
		{[]string{"linux/arm64"}, "linux/arm64/v8", "linux/arm64"},
		{[]string{"linux/amd64", "linux/amd64"}, "linux/amd64", "linux/amd64"},
		{[]string{"none"}, "linux/amd64", "none"},
		{[]string{"none", "none"}, "linux/amd64", ""},
		{[]string{"none", "linux/amd64"}, "linux/amd64", "linux/amd64"},
		{[]string{"attestation"}, "linux/amd64", ""},
		{nil, "linux/amd64", ""},
	} {
		want, err := ParsePlatform(c.want)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Select(index(c.have...), want)
		if c.got == "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v for %s: %v, %v", c.have, c.want, d.Platform, err)
			}
			continue
		}
		if err != nil || d.Digest != digest.FromString(c.got) {
			t.Errorf("%v for %s: %v, %v, want %s", c.have, c.want, d.Platform, err, c.got)
		}
	}
	x := index("linux/amd64")
	x.Manifests[0].MediaType = "application/vnd.example.other+json"
	if _, err := Select(x, ispec.Platform{OS: "linux", Architecture: "amd64"}); err == nil {
		t.Error("an entry that is no image was selected")
	}
}

func TestCheckPlatform(t *testing.T) {
	c, err := ParseConfig(config(``), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckPlatform(c, ispec.Platform{OS: "linux", Architecture: "amd64"}); err != nil {
		t.Error(err)
	}
	err = CheckPlatform(c, ispec.Platform{OS: "linux", Architecture: "arm64"})
	if err == nil || !strings.Contains(err.Error(), `"linux/amd64"`) || !strings.Contains(err.Error(), `"linux/arm64"`) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkParseConfig(b *testing.B) {
	doc := config(`"Env":["PATH=/usr/bin","A=b","C=d"],"Cmd":["a","b"],"Labels":{` + manyMembers(30) + `}`)
	doc = append(doc[:len(doc)-1], (`,"history":[` + strings.Repeat(`{"created_by":"RUN something or other"},`, 20) + `{}]}`)...)
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if _, err := ParseConfig(doc, 1); err != nil {
			b.Fatal(err)
		}
	}
}
