// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"go/build"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The launch path: read the policy, read the receipt, judge it.
func BenchmarkLaunch(b *testing.B) {
	priv, k := testKey(b)
	l := newLayer(b)
	l.key("acme.pub", k)
	l.rule("50-acme.conf", "registry.example", "sigstore-key", "acme.pub")
	r := Receipt{
		Reference: testName + ":v1", Name: testName, Manifest: testManifest,
		Signatures: []Signature{bundleOf(b, priv, statementOf(SignPredicate, testManifest), nil)},
	}
	dir := b.TempDir()
	if err := openReceipts(b, dir).Save(r); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p := loadPolicy(b, "/nonexistent/vendor", l.dir)
		rs, err := OpenReceipts(dir+"/receipts", dir+"/host.key")
		if err != nil {
			b.Fatal(err)
		}
		got, err := rs.Load(r.Reference, r.Manifest)
		if err != nil {
			b.Fatal(err)
		}
		if v := p.Judge(got.Subject(), got.Signatures); !v.Accepted {
			b.Fatal(v.Err())
		}
		rs.Close()
	}
}

func BenchmarkJudge(b *testing.B) {
	priv, k := testKey(b)
	p := trusting(b, k)
	sigs := []Signature{bundleOf(b, priv, statementOf(SignPredicate, testManifest), nil)}
	for b.Loop() {
		if v := p.Judge(testSubject(), sigs); !v.Accepted {
			b.Fatal(v.Err())
		}
	}
}

func BenchmarkVerifyP256(b *testing.B) {
	priv, k := testKey(b)
	msg := []byte("message")
	sig := signWith(b, priv, msg)
	for b.Loop() {
		if !k.verify(msg, sig) {
			b.Fatal("not verified")
		}
	}
}

func BenchmarkLoadPolicy100Rules(b *testing.B) {
	_, k := testKey(b)
	l := newLayer(b)
	l.key("acme.pub", k)
	for i := range 100 {
		l.rule(strings.Repeat("x", i+1)+".conf", "registry.example/"+strings.Repeat("x", i+1), "sigstore-key", "acme.pub")
	}
	for b.Loop() {
		loadPolicy(b, l.dir)
	}
}

// The launch path starts in a few milliseconds because it links no TLS and no
// HTTP; this package must not bring them in.
func TestNoNetworkLinked(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("ability missing: the go command")
	}
	if _, err := build.Default.Import("github.com/gantryrun/gantry/signature", ".", build.FindOnly); err != nil {
		t.Skip("ability missing: the source tree")
	}
	out, err := exec.Command(goTool, "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	for _, d := range []string{"net/http", "crypto/tls", "golang.org/x/crypto/scrypt", "golang.org/x/crypto/nacl/secretbox"} {
		if slices.Contains(deps, d) {
			t.Errorf("%s is linked", d)
		}
	}
}
