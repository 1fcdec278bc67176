// SPDX-License-Identifier: Apache-2.0

package version

import (
	"runtime/debug"
	"testing"
)

func TestRecorded(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123"}
	dirty := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for _, c := range []struct {
		name  string
		build debug.BuildInfo
		want  string
	}{
		{"tarball", debug.BuildInfo{}, "v0-dev"},
		{"go install of a release", debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, "v1.2.3"},
		{"checkout", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{revision}}, "v0-dev-0123456789ab"},
		{"changed checkout", debug.BuildInfo{Settings: []debug.BuildSetting{revision, dirty}}, "v0-dev-0123456789ab-dirty"},
	} {
		if got := recorded(&c.build); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
