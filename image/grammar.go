// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of the distribution specification and of DNS.
const (
	maxRepository = 255
	maxTag        = 128
	maxHost       = 253
	maxHostLabel  = 63
)

// splitHost cuts the host off a name. The first component is a host if it
// cannot be anything else: it is localhost, or has a dot or a colon. An
// upper-case one is handed on as part of the repository, which refuses it.
func splitHost(name string) (host, repository string) {
	first, rest, found := strings.Cut(name, "/")
	if found && (strings.EqualFold(first, "localhost") || strings.ContainsAny(first, ".:[")) {
		return first, rest
	}
	return defaultHost, name
}

// canonicalHost checks host[:port] and returns the one spelling of it.
func canonicalHost(s string) (string, error) {
	host, port, err := splitPort(s)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(host, "[") {
		host, err = canonicalIPv6(host)
	} else {
		host = strings.ToLower(host)
		err = checkHostname(host)
	}
	if err != nil {
		return "", err
	}
	if host == legacyHost && port == "" {
		host = defaultHost
	}
	return host + port, nil
}

// splitPort returns the host and ":port", or "" if there is none.
func splitPort(s string) (host, port string, err error) {
	after := strings.LastIndexByte(s, ']') + 1
	i := strings.IndexByte(s[after:], ':')
	if i < 0 {
		return s, "", nil
	}
	host, port = s[:after+i], s[after+i+1:]
	if strings.Contains(port, ":") {
		return "", "", fmt.Errorf("host %s: an IPv6 address must be in brackets, as in [::1]:5000", quote(s))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return "", "", fmt.Errorf("host %s: port %s is not a number from 1 to 65535", quote(s), quote(port))
	}
	return host, ":" + port, nil
}

func canonicalIPv6(s string) (string, error) {
	if !strings.HasSuffix(s, "]") {
		return "", fmt.Errorf("host %s: text after or without the closing bracket", quote(s))
	}
	addr, err := netip.ParseAddr(s[1 : len(s)-1])
	switch {
	case err != nil || !addr.Is6():
		return "", fmt.Errorf("host %s: not an IPv6 address in the brackets", quote(s))
	case addr.Zone() != "":
		return "", fmt.Errorf("host %s: a zone means nothing to others than this host", quote(s))
	case addr.Is4In6():
		return "", fmt.Errorf("host %s: write the IPv4 address itself", quote(s))
	}
	return "[" + addr.String() + "]", nil
}

func checkHostname(host string) error {
	if len(host) > maxHost {
		return fmt.Errorf("host %s: longer than %d characters", quote(host), maxHost)
	}
	for label := range strings.SplitSeq(host, ".") {
		switch {
		case label == "":
			return fmt.Errorf("host %s: empty part between dots", quote(host))
		case len(label) > maxHostLabel:
			return fmt.Errorf("host %s: part %s is longer than %d characters", quote(host), quote(label), maxHostLabel)
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("host %s: part %s begins or ends with a hyphen", quote(host), quote(label))
		}
		if i := strings.IndexFunc(label, func(r rune) bool { return !isLowerAlnum(r) && r != '-' }); i >= 0 {
			return fmt.Errorf("host %s: character %s is not a letter, digit, dot or hyphen", quote(host), quoteAt(label, i))
		}
	}
	return nil
}

func checkRepository(repository string) error {
	if len(repository) > maxRepository {
		return fmt.Errorf("repository %s: %d characters, at most %d are allowed", quote(repository), len(repository), maxRepository)
	}
	if lower := strings.ToLower(repository); lower != repository {
		return fmt.Errorf("repository %s: must be lower-case; did you mean %s?", quote(repository), quote(lower))
	}
	for component := range strings.SplitSeq(repository, "/") {
		if err := checkComponent(component); err != nil {
			return fmt.Errorf("repository %s: %w", quote(repository), err)
		}
	}
	return nil
}

// checkComponent wants runs of lower-case letters and digits, with one dot, one
// or two underscores, or any number of hyphens between them.
func checkComponent(c string) error {
	if c == "" {
		return errors.New("empty part between slashes")
	}
	separator := ""
	for i, r := range c {
		if isLowerAlnum(r) {
			if !validSeparator(separator, i == len(separator)) {
				return fmt.Errorf("part %s: %s where a letter or digit must be", quote(c), quote(separator))
			}
			separator = ""
			continue
		}
		if r != '.' && r != '_' && r != '-' {
			return fmt.Errorf("part %s: character %s is not a lower-case letter, digit, dot, underscore or hyphen", quote(c), quoteAt(c, i))
		}
		separator += string(r)
	}
	if separator != "" {
		return fmt.Errorf("part %s: ends with %s", quote(c), quote(separator))
	}
	return nil
}

func validSeparator(s string, leading bool) bool {
	if s == "" {
		return true
	}
	return !leading && (s == "." || s == "_" || s == "__" || strings.Trim(s, "-") == "")
}

func checkTag(tag string) error {
	switch {
	case tag == "":
		return errors.New("empty tag after the colon")
	case len(tag) > maxTag:
		return fmt.Errorf("tag %s: %d characters, at most %d are allowed", quote(tag), len(tag), maxTag)
	case tag[0] == '.' || tag[0] == '-':
		return fmt.Errorf("tag %s: begins with %s; it must begin with a letter, digit or underscore", quote(tag), quote(tag[:1]))
	}
	if i := strings.IndexFunc(tag, func(r rune) bool { return !isAlnum(r) && r != '_' && r != '.' && r != '-' }); i >= 0 {
		return fmt.Errorf("tag %s: character %s is not a letter, digit, underscore, dot or hyphen", quote(tag), quoteAt(tag, i))
	}
	return nil
}

// checkLayoutTag checks the name of an entry of a layout. The layout
// specification allows whole references there, so more than a tag can be.
func checkLayoutTag(tag string) error {
	switch {
	case tag == "":
		return errors.New("empty name after the path")
	case len(tag) > 1024:
		return errors.New("name after the path longer than 1024 bytes")
	case !isAlnum(rune(tag[0])) && tag[0] != '_' && tag[0] != '[':
		return fmt.Errorf("name %s: must begin with a letter or digit", quote(tag))
	}
	if i := strings.IndexFunc(tag, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("-._:@/+[]", r) }); i >= 0 {
		return fmt.Errorf("name %s: character %s is not a letter, digit or one of -._:@/+", quote(tag), quoteAt(tag, i))
	}
	return nil
}

func isLowerAlnum(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }
func isAlnum(r rune) bool      { return isLowerAlnum(r) || r >= 'A' && r <= 'Z' }

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// notPrintable is true for controls, for the invisible characters that
// reorder or hide text, and for bytes that are not UTF-8.
func notPrintable(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// quoteAt quotes the character of s at byte i.
func quoteAt(s string, i int) string {
	_, size := utf8.DecodeRuneInString(s[i:])
	return quote(s[i : i+size])
}
