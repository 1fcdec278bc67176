// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each misconfiguration denies its prefix and has its own message, which says
// what stands there and what to write.
func TestMisconfigurations(t *testing.T) {
	const head = "[Trust]\nPrefix=registry.example\n"
	_, k := testKey(t)
	pem, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"good.pub":    string(pem),
		"private.pub": "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
		"cert.pub":    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"pkcs1.pub":   "-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n",
		"two.pub":     string(pem) + string(pem),
		"text.pub":    "ssh-ed25519 AAAA somebody\n",
		"broken.pub":  "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
		"rsa1024.pub": rsa1024,
		"p224.pub":    p224,
		"empty.pub":   "",
	}
	tests := []struct{ name, file, want string }{
		{"no accept", head, "no Accept= line; write Accept=sigstore-key, reject or insecure"},
		{"no key", head + "Accept=sigstore-key\n", "no Key= line, so Accept=sigstore-key accepts nobody"},
		{"no prefix", "[Trust]\nAccept=reject\n", "no Prefix= line, so nobody can tell which images it is about"},
		{"unknown accept", head + "Accept=maybe\n", "line 3: Accept=maybe is not known; write sigstore-key, reject or insecure"},
		{"keyless is for later", head + "Accept=sigstore-keyless\n", "line 3: Accept=sigstore-keyless is not available in this version of gantry, which verifies sigstore-key"},
		{"openpgp is for later", head + "Accept=openpgp\n", "Accept=openpgp is not available in this version"},
		{"notation is for later", head + "Accept=notation\n", "Accept=notation is not available in this version"},
		{"thresholds are for later", head + "Accept=sigstore-key\nKey=good.pub\nRequire=2\n", "line 5: Require= is not available in this version of gantry"},
		{"unknown key", head + "Accept=reject\nColour=red\n", "line 4: Colour= is not known"},
		{"misspelt key", head + "Accept=sigstore-key\nkey=good.pub\n", "line 4: key= is not known; did you mean Key=?"},
		{"plural key", head + "Accept=sigstore-key\nKeys=good.pub\n", "line 4: Keys= is not known; did you mean Key=?"},
		{"insecure everything", "[Trust]\nPrefix=*\nAccept=insecure\n", "line 3: Accept=insecure is refused for Prefix=*; name the images that may go unsigned"},
		{"two prefixes", head + "Prefix=other.example\nAccept=reject\n", "line 3: Prefix= again (first on line 2); write one rule per file"},
		{"two rules", head + "Accept=reject\n[Trust]\n", "line 4: a second [Trust]; write one rule per file"},
		{"two accepts", head + "Accept=reject\nAccept=insecure\n", "line 4: Accept= again (first on line 3)"},
		{"unknown section", head + "Accept=reject\n[Unit]\n", "line 4: section [Unit] is not known; a rule stands in [Trust]"},
		{"no section", "Prefix=registry.example\n", `line 1: "Prefix=registry.example" stands before the first [Section]`},
		{"no equals sign", head + "Accept reject\n", `line 3: "Accept reject" is neither Key=Value nor a [Section]`},
		{"Windows line ends", "[Trust]\r\nPrefix=registry.example\r\n", "line 1: control characters (a file saved with Windows line ends?)"},
		{"continuation", head + "Accept=sigstore-key\nKey=good.pub\\\n", "line 4: Key= ends in a backslash; continuation lines are not supported"},
		{"not text", head + "Accept=\xff\xfe\n", "not UTF-8 text"},
		{"tag in prefix", "[Trust]\nPrefix=registry.example/a:1\nAccept=reject\n", "line 2: the prefix registry.example/a:1: a prefix has no tag and no digest"},
		{"glob in prefix", "[Trust]\nPrefix=registry.example/a*\nAccept=reject\n", "* stands alone for everything; a prefix already covers whatever lies below it"},
		{"a path", "[Trust]\nPrefix=/srv/images/\nAccept=reject\n", "line 2: the prefix /srv/images/ is a path; write oci:/srv/images for the layouts there"},
		{"no registry", "[Trust]\nPrefix=nginx\nAccept=reject\n", "line 2: the prefix nginx does not begin with a registry; write docker.io/library/nginx or docker.io/nginx"},
		{"dots in prefix", "[Trust]\nPrefix=registry.example/../x\nAccept=reject\n", `".." is not a component of a repository name`},
		{"relative layout", "[Trust]\nPrefix=oci:images\nAccept=reject\n", "line 2: the prefix oci:images needs a clean absolute path"},
		{"transparency required", head + "Accept=sigstore-key\nKey=good.pub\nTransparency=require\n", "line 5: Transparency=require is not available in this version of gantry, which has no transparency log verifier; write if-present or ignore"},
		{"transparency unknown", head + "Accept=sigstore-key\nKey=good.pub\nTransparency=yes\n", "line 5: Transparency=yes is not known; write if-present or ignore"},
		{"key beside reject", head + "Accept=reject\nKey=good.pub\n", "line 4: Key= means nothing beside Accept=reject"},
		{"transparency beside insecure", head + "Accept=insecure\nTransparency=ignore\n", "line 4: Transparency= means nothing beside Accept=insecure"},
		{"SignedAs nothing", head + "Accept=sigstore-key\nKey=good.pub\nSignedAs=*\n", "line 5: SignedAs=* is not a repository name"},
		{"key elsewhere", head + "Accept=sigstore-key\nKey=../x.pub\n", "line 4: Key=../x.pub: name a file in trust/keys, without directories"},
		{"key absent", head + "Accept=sigstore-key\nKey=x.pub\n", "line 4: Key=x.pub: no such key in trust/keys of "},
		{"key with comment", head + "Accept=sigstore-key\nKey=good.pub # ours\n", "line 4: Key=good.pub # ours: no such key in trust/keys of "},
		{"private key", head + "Accept=sigstore-key\nKey=private.pub\n", "this is a private key (ENCRYPTED SIGSTORE PRIVATE KEY); give its public half, and keep this file away from here"},
		{"certificate", head + "Accept=sigstore-key\nKey=cert.pub\n", "this is a certificate; extract its public key with openssl x509 -pubkey -noout"},
		{"old RSA form", head + "Accept=sigstore-key\nKey=pkcs1.pub\n", `PEM block "RSA PUBLIC KEY" is not PUBLIC KEY; convert it with openssl pkey -pubin -pubout`},
		{"two keys in a file", head + "Accept=sigstore-key\nKey=two.pub\n", "more than one PEM block; one key per file"},
		{"ssh key", head + "Accept=sigstore-key\nKey=text.pub\n", "no PEM block; a public key file begins with -----BEGIN PUBLIC KEY-----"},
		{"broken key", head + "Accept=sigstore-key\nKey=broken.pub\n", "broken.pub: parse public key: "},
		{"weak RSA", head + "Accept=sigstore-key\nKey=rsa1024.pub\n", "RSA of 1024 bits is not accepted; use 2048 to 8192"},
		{"weak curve", head + "Accept=sigstore-key\nKey=p224.pub\n", "ECDSA on P-224 is not accepted; use P-256, P-384 or P-521"},
		{"masked key", head + "Accept=sigstore-key\nKey=empty.pub\n", "line 4: Key=empty.pub: no such key in trust/keys of "},
	}
	seen := map[string]string{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLayer(t)
			for name, text := range files {
				l.write("trust/keys/"+name, text)
			}
			l.write("trust.d/50-test.conf", tt.file)
			s := testSubject()
			v := l.policy().Judge(s, nil)
			wantVerdict(t, v, ReasonClosed, tt.want)
			if !strings.Contains(v.Explain(), filepath.Join(l.dir, "trust.d/50-test.conf")) {
				t.Errorf("the file is not named:\n%s", v.Explain())
			}
			said := strings.ReplaceAll(v.Detail, l.dir, "")
			if before, twice := seen[said]; twice {
				t.Errorf("same message as %s: %s", before, said)
			}
			seen[said] = tt.name
		})
	}
}

// What is in the place of a rule and is no file denies everything.
func TestNotAFile(t *testing.T) {
	for name, build := range map[string]func(path string) error{
		"directory":     func(p string) error { return os.Mkdir(p, 0o755) },
		"dangling link": func(p string) error { return os.Symlink("nowhere", p) },
		"link loop":     func(p string) error { return os.Symlink(filepath.Base(p), p) },
		"device":        func(p string) error { return os.Symlink("/dev/zero", p) },
		"huge file":     func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("#\n", 64<<10)), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayer(t)
			if err := build(filepath.Join(l.dir, "trust.d/50-test.conf")); err != nil {
				t.Fatal(err)
			}
			wantVerdict(t, l.policy().Judge(testSubject(), nil), ReasonClosed, "50-test.conf, which may be about any image")
		})
	}
}

// A layer that is a file, or that cannot be listed, hides rules.
func TestNotADirectory(t *testing.T) {
	l := newLayer(t)
	if err := os.Remove(filepath.Join(l.dir, "trust.d")); err != nil {
		t.Fatal(err)
	}
	l.write("trust.d", "")
	wantVerdict(t, l.policy().Judge(testSubject(), nil), ReasonClosed, "is not a directory")
}

const rsa1024 = `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDQzYe919asKM/nSLOgy3mEys6s
wEAtId7pPNE3XVNOnVQHRpyp4cMGBEln7SD/okR5VOwntCfHBSp7UjoZTKmSk0TA
RyoyHbGi2XBPDBF/necDAQyzCpra8+xCoSdebUxSw6m0lb53/CZGIhgLByms32vm
dHXhvgEp6YRyraCaGQIDAQAB
-----END PUBLIC KEY-----
`

const p224 = `-----BEGIN PUBLIC KEY-----
ME4wEAYHKoZIzj0CAQYFK4EEACEDOgAEGZ0U+2SWRxHNWXjnyVUTLl7P7nQpwtv6
jhNQnQKDruztMqiFMxIN0Du/UkTcBarjleofVEJEgiA=
-----END PUBLIC KEY-----
`
