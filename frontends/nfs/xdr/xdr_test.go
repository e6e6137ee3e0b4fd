package xdr

import (
	"bytes"
	"testing"
)

func TestEncodingIsRFC4506s(t *testing.T) {
	var e Encoder
	e.Uint32(0xfffefdfc)
	e.Uint64(1<<32 | 2)
	e.Bool(true)
	e.Bool(false)
	e.Opaque([]byte("abcde"))
	e.String("sillyprog") // the string of the example in RFC 4506, section 7
	e.Fixed([]byte{1, 2, 3, 4})
	e.Put(0, 7)
	want := []byte{
		0, 0, 0, 7,
		0, 0, 0, 1, 0, 0, 0, 2,
		0, 0, 0, 1,
		0, 0, 0, 0,
		0, 0, 0, 5, 'a', 'b', 'c', 'd', 'e', 0, 0, 0,
		0, 0, 0, 9, 's', 'i', 'l', 'l', 'y', 'p', 'r', 'o', 'g', 0, 0, 0,
		1, 2, 3, 4,
	}
	if !bytes.Equal(e.B, want) {
		t.Fatalf("encoded % x, want % x", e.B, want)
	}
	read := func(b []byte) (ok, same bool) {
		d := NewDecoder(b)
		same = d.Uint32() == 7 && d.Uint64() == 1<<32|2 && d.Bool() && !d.Bool() && string(d.Opaque(5)) == "abcde" && string(d.Opaque(255)) == "sillyprog" &&
			bytes.Equal(d.Fixed(4), []byte{1, 2, 3, 4})
		return d.OK() && len(d.Rest()) == 0, same
	}
	if ok, same := read(want); !ok || !same {
		t.Errorf("decoded: ok %v, same %v", ok, same)
	}
	for n := range want {
		if ok, _ := read(want[:n]); ok {
			t.Errorf("a prefix of %d bytes was accepted", n)
		}
	}
}

func TestDecoderRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []byte
		f    func(*Decoder)
	}{
		{"a boolean of 2", []byte{0, 0, 0, 2}, func(d *Decoder) { d.Bool() }},
		{"opaque over its bound", []byte{0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0}, func(d *Decoder) { d.Opaque(4) }},
		{"opaque of 4 GiB", []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}, func(d *Decoder) { d.Opaque(1 << 30) }},
		{"opaque without padding", []byte{0, 0, 0, 5, 1, 2, 3, 4, 5}, func(d *Decoder) { d.Opaque(8) }},
		{"a negative length", []byte{1, 2, 3, 4}, func(d *Decoder) { d.Fixed(-1) }},
		{"what follows a fault", []byte{0, 0, 0, 2, 0, 0, 0, 1}, func(d *Decoder) { d.Bool(); d.Uint32() }},
	} {
		d := NewDecoder(tc.in)
		tc.f(&d)
		if d.OK() {
			t.Errorf("%s was accepted", tc.name)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 'a', 0, 0, 0}, []byte{4})
	f.Fuzz(func(t *testing.T, in, script []byte) {
		d := NewDecoder(in)
		for _, c := range script {
			switch c % 5 {
			case 0:
				d.Uint32()
			case 1:
				d.Uint64()
			case 2:
				d.Bool()
			case 3:
				d.Fixed(int(c))
			case 4:
				if p := d.Opaque(int(c)); len(p) > int(c) {
					t.Fatalf("%d bytes over a bound of %d", len(p), c)
				}
			}
			if d.Offset() > len(in) {
				t.Fatal("read beyond the input")
			}
		}
	})
}
