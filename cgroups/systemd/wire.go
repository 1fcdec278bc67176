// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// value is a D-Bus value that we can say: a string, path, bool, uint32, int32,
// uint64, []string, []uint32 or []byte. A property of a unit has no other.
type value any

// path is an object path, which differs from a string by its type alone.
type path string

// Property is one of a unit's.
type Property struct {
	Name  string
	Value value
}

// encoder writes the body of a message, in our own byte order, which the
// message names (D-Bus specification, Marshaling).
type encoder struct{ b []byte }

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) uint32(n uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, n)
}

func (e *encoder) string(s string) {
	e.uint32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) signature(s string) { e.b = append(append(append(e.b, byte(len(s))), s...), 0) }

// array writes elements that begin at multiples of alignment, with their
// length in bytes before them, in which the first padding does not count.
func (e *encoder) array(alignment int, elements func()) {
	e.uint32(0)
	at := len(e.b)
	e.align(alignment)
	begin := len(e.b)
	elements()
	binary.LittleEndian.PutUint32(e.b[at-4:], uint32(len(e.b)-begin))
}

// signatureOf names the type of a value; "" for one that cannot be said.
func signatureOf(v value) string {
	switch v.(type) {
	case string:
		return "s"
	case path:
		return "o"
	case bool:
		return "b"
	case uint32:
		return "u"
	case int32:
		return "i"
	case uint64:
		return "t"
	case []string:
		return "as"
	case []uint32:
		return "au"
	case []byte:
		return "ay"
	case []Property:
		return "a(sv)"
	case []unit:
		return "a(sa(sv))"
	}
	return ""
}

// unit is an auxiliary unit of StartTransientUnit; we have none, but there is
// an array for them.
type unit struct{}

func (e *encoder) value(v value) {
	switch v := v.(type) {
	case string:
		e.string(v)
	case path:
		e.string(string(v))
	case bool:
		e.uint32(map[bool]uint32{true: 1}[v])
	case uint32:
		e.uint32(v)
	case int32:
		e.uint32(uint32(v))
	case uint64:
		e.align(8)
		e.b = binary.LittleEndian.AppendUint64(e.b, v)
	case []string:
		e.array(4, func() {
			for _, s := range v {
				e.string(s)
			}
		})
	case []uint32:
		e.array(4, func() {
			for _, n := range v {
				e.uint32(n)
			}
		})
	case []byte:
		e.array(1, func() { e.b = append(e.b, v...) })
	case []Property:
		e.array(8, func() {
			for _, p := range v {
				e.align(8)
				e.string(p.Name)
				e.signature(signatureOf(p.Value))
				e.value(p.Value)
			}
		})
	case []unit:
		e.array(8, func() {})
	}
}

// Kinds of messages, and fields of their headers.
const (
	kindCall   = 1
	kindReturn = 2
	kindError  = 3
	kindSignal = 4

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldError       = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// message is one that was received.
type message struct {
	kind      byte
	serial    uint32
	reply     uint32
	iface     string
	member    string
	errorName string
	signature string
	body      decoder
}

// callMessage is a whole call. A signature that is empty has no field.
func callMessage(serial uint32, destination string, object path, iface, member string, args []value) []byte {
	var body encoder
	signature := ""
	for _, a := range args {
		signature += signatureOf(a)
		body.value(a)
	}
	e := encoder{b: []byte{'l', kindCall, 0, 1}}
	e.uint32(uint32(len(body.b)))
	e.uint32(serial)
	e.array(8, func() {
		field := func(n byte, sig, s string) {
			if s == "" {
				return
			}
			e.align(8)
			e.b = append(e.b, n)
			e.signature(sig)
			if sig == "g" {
				e.signature(s)
				return
			}
			e.string(s)
		}
		field(fieldPath, "o", string(object))
		field(fieldInterface, "s", iface)
		field(fieldMember, "s", member)
		field(fieldDestination, "s", destination)
		field(fieldSignature, "g", signature)
	})
	e.align(8)
	return append(e.b, body.b...)
}

// maxMessage bounds what is read; D-Bus itself allows 128 MiB, systemd says
// nothing to us that is longer than a line.
const maxMessage = 1 << 20

var errMessage = errors.New("a message that is none")

// decoder reads in the byte order of the message. Once it has failed it gives
// zero values.
type decoder struct {
	b     []byte
	at    int
	order binary.ByteOrder
	err   error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || len(d.b)-d.at < n {
		d.err = errMessage
		return make([]byte, min(max(n, 0), 16))
	}
	d.at += n
	return d.b[d.at-n : d.at]
}

func (d *decoder) align(n int) {
	for d.at%n != 0 && d.err == nil {
		d.take(1)
	}
}

func (d *decoder) uint32() uint32 {
	d.align(4)
	return d.order.Uint32(d.take(4))
}

func (d *decoder) string() string {
	n := d.uint32()
	if n > maxMessage {
		d.err = errMessage
		return ""
	}
	s := string(d.take(int(n)))
	d.take(1)
	if d.err != nil {
		return ""
	}
	return s
}

func (d *decoder) signature() string {
	s := string(d.take(int(d.take(1)[0])))
	d.take(1)
	if d.err != nil {
		return ""
	}
	return s
}

// headerSize returns how many bytes a message has after its first sixteen.
func headerSize(fixed []byte) (rest int, err error) {
	order, err := orderOf(fixed)
	if err != nil {
		return 0, err
	}
	body, fields := order.Uint32(fixed[4:]), order.Uint32(fixed[12:])
	if body > maxMessage || fields > maxMessage || fixed[3] != 1 {
		return 0, errMessage
	}
	return int(fields+7)&^7 + int(body), nil
}

func orderOf(fixed []byte) (binary.ByteOrder, error) {
	if len(fixed) < 16 {
		return nil, errMessage
	}
	switch fixed[0] {
	case 'l':
		return binary.LittleEndian, nil
	case 'B':
		return binary.BigEndian, nil
	}
	return nil, errMessage
}

// parse reads a whole message.
func parse(b []byte) (*message, error) {
	order, err := orderOf(b)
	if err != nil {
		return nil, err
	}
	m := &message{kind: b[1], serial: order.Uint32(b[8:])}
	end := 16 + int(order.Uint32(b[12:]))
	d := decoder{b: b[:min(end, len(b))], at: 16, order: order}
	if end > len(b) {
		return nil, errMessage
	}
	for d.at < end && d.err == nil {
		d.align(8)
		m.field(d.take(1)[0], &d)
	}
	if d.err != nil {
		return nil, d.err
	}
	begin := (end + 7) &^ 7
	if begin > len(b) {
		return nil, errMessage
	}
	m.body = decoder{b: b[begin:], order: order}
	return m, nil
}

// field reads one of the header; those of types that we do not know cannot be
// passed over, and none has any.
func (m *message) field(number byte, d *decoder) {
	sig := d.signature()
	var s string
	var n uint32
	switch sig {
	case "s", "o":
		s = d.string()
	case "g":
		s = d.signature()
	case "u":
		n = d.uint32()
	default:
		d.err = fmt.Errorf("%w: field %d of type %q", errMessage, number, sig)
	}
	switch number {
	case fieldInterface:
		m.iface = s
	case fieldMember:
		m.member = s
	case fieldError:
		m.errorName = s
	case fieldReplySerial:
		m.reply = n
	case fieldSignature:
		m.signature = s
	}
}
