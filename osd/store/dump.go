package store

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"holdfast/core/loop"
)

// Dump writes what is on a device to w: the superblock, the journal's batches and entries, the objects with what the journal adds to them, the PG records. With asJSON each line is a
// JSON object. Nothing is changed on the device. A damaged store is shown as far as it can be read; done then gets the damage.
func Dump(l loop.Loop, d loop.Disk, w io.Writer, asJSON bool, done func(error)) {
	out := &dumper{w: w, json: asJSON}
	x := newDeviceIO(l, d)
	x.readSuper(func(st superState, _ error) {
		if !st.ok {
			x.release()
			done(st.failure())
			return
		}
		sb := st.sb
		for i, err := range st.errs {
			if err != nil {
				out.line("superblock-copy", field{"copy", i}, field{"error", err.Error()})
			}
		}
		out.super(&sb)
		mem := make([]byte, sb.Journal.Len)
		x.each(sb.Journal.at(0), sb.Journal.Len, func(at int64, b []byte) error {
			copy(mem[at:], b)
			return nil
		}, func(err error) {
			x.release()
			if err != nil {
				done(err)
				return
			}
			out.journal(&sb, mem)
			Open(l, d, Options{ReadOnly: true}, func(s *Store, err error) {
				if err != nil {
					done(errors.Join(err, out.err))
					return
				}
				out.objects(s)
				s.Close(func() { done(out.err) })
			})
		})
	})
}

// dumper writes lines of named values.
type dumper struct {
	w    io.Writer
	json bool
	err  error
}

type field struct {
	name  string
	value any
}

func (o *dumper) line(kind string, fields ...field) {
	if o.err != nil {
		return
	}
	b := []byte(kind)
	if o.json {
		b = fmt.Appendf(nil, `{"kind":%q`, kind)
	}
	for _, f := range fields {
		if !o.json {
			b = fmt.Appendf(b, " %s=%v", f.name, f.value)
			continue
		}
		v, err := json.Marshal(f.value)
		if err != nil {
			o.err = err
			return
		}
		b = fmt.Appendf(b, ",%q:%s", f.name, v)
	}
	if o.json {
		b = append(b, '}')
	}
	_, o.err = o.w.Write(append(b, '\n'))
}

func (o *dumper) super(sb *Superblock) {
	c := &sb.Config
	fields := []field{{"version", sb.Version}, {"store", sb.StoreID.String()}, {"boot", sb.Boot}, {"created", sb.Created.Format("2006-01-02T15:04:05Z")},
		{"device", c.Identity}, {"block_size", c.BlockSize}, {"bitmap_granularity", c.Granularity}, {"data_csum_type", c.ChecksumType.String()},
		{"csum_block_size", c.ChecksumBlock}, {"sector", sb.Sector}, {"page_size", sb.PageSize}, {"slots", sb.Slots}, {"blocks", sb.Blocks},
		{"journal_offset", sb.Journal.Off}, {"journal_size", sb.Journal.Len}, {"meta_offset", sb.Meta.Off}, {"meta_size", sb.Meta.Len},
		{"data_offset", sb.Data.Off}, {"data_size", sb.Data.Len}, {"end_batch", sb.endBatch}, {"end_entry", sb.endEntry}, {"tail_batch", sb.tailBatch}}
	for k := uint32(1); k <= sb.others; k++ {
		fields = append(fields, field{strings.ReplaceAll(sb.roles(k), " ", "_") + "_device", sb.Others[k-1]})
	}
	o.line("superblock", fields...)
}

func (o *dumper) journal(sb *Superblock, mem []byte) {
	for pos := uint64(0); pos < uint64(len(mem)); pos += journalAlign {
		h, err := decodeBatch(mem[pos:], sb, pos)
		if err == errNoBatch {
			continue
		}
		if err != nil {
			o.line("bad-batch", field{"pos", pos}, field{"error", err.Error()})
			continue
		}
		b := mem[pos : pos+uint64(h.size())]
		state := "good"
		if err := h.checkData(b); err != nil {
			state = err.Error()
		}
		o.line("batch", field{"pos", pos}, field{"seq", h.seq}, field{"epoch", h.epoch}, field{"first", h.first}, field{"entries", h.count}, field{"bytes", h.size()},
			field{"durable", h.durable}, field{"soft", h.soft}, field{"tail", h.tailSeq}, field{"round", h.roundDone}, field{"data", state})
		if err := h.entries(b, sb, func(e *entry, _ uint32) error { o.entry(e); return nil }); err != nil {
			o.line("bad-entry", field{"pos", pos}, field{"error", err.Error()})
		}
	}
}

func (o *dumper) entry(e *entry) {
	f := []field{{"seq", e.seq}, {"type", e.kind.String()}}
	switch {
	case e.kind.onObject():
		f = append(f, field{"object", e.object.String()}, field{"base", e.base}, field{"version", e.version}, field{"interval", e.interval}, field{"flags", e.flags},
			field{"offset", e.off}, field{"len", e.length})
		if e.block != noBlock {
			f = append(f, field{"block", e.block})
		}
		if e.pair.Session != 0 {
			f = append(f, field{"session", e.pair.Session}, field{"sequence", e.pair.Sequence}, field{"low", e.low})
		}
	case e.kind == entryPair:
		f = append(f, field{"object", e.object.String()}, field{"session", e.pair.Session}, field{"sequence", e.pair.Sequence}, field{"version", e.version})
	case e.kind == entrySessionEnd:
		f = append(f, field{"session", e.pair.Session})
	case e.kind == entryPG, e.kind == entryPGDrop:
		f = append(f, field{"pg", e.pg.PG.String()}, field{"interval", uint64(e.pg.Interval)})
	case e.kind == entryPages:
		f = append(f, field{"round", e.round}, field{"pages", len(e.pages) / 8})
	}
	o.line("entry", f...)
}

func (o *dumper) objects(s *Store) {
	for i := uint32(0); uint64(i) < s.sb.Slots; i++ {
		if !s.t.slotFree.has(i) {
			continue
		}
		oid := s.t.object(i)
		_, slot, d, ok := s.lookup(oid)
		if !ok || slot != i {
			continue
		}
		last, changes, waiting := uint32(0), 0, 0
		if d != 0 {
			last = s.dirty[d].lastVisible
			for k := s.dirty[d].first; k != 0; k = s.changes[k].next {
				changes++
				if s.changes[k].flags&entryUnstable != 0 {
					waiting++
				}
			}
		}
		s.resolve(&s.view, slot, d, last)
		v := &s.view
		if v.state.Version == 0 {
			continue
		}
		f := []field{{"object", oid.String()}, {"version", uint64(v.state.Version)}, {"interval", uint64(v.state.Interval)}, {"flags", flagNames(v.state.Flags)}, {"slot", i},
			{"written", hex.EncodeToString(v.written)}, {"present", hex.EncodeToString(v.present)}, {"journaled", changes}}
		if waiting > 0 {
			f = append(f, field{"waiting", waiting})
		}
		if v.block != noBlock {
			f = append(f, field{"block", v.block}, field{"offset", s.sb.blockOff(v.block)})
		}
		o.line("object", f...)
	}
	for _, r := range s.PGs() {
		o.line("pg", field{"pg", r.PG.String()}, field{"generation", r.Generation}, field{"interval", uint64(r.Interval)}, field{"primary", uint64(r.Primary)},
			field{"took_part", uint64(r.TookPart)}, field{"floor", uint64(r.Floor)}, field{"participants", memberNames(r.Participants)}, field{"sets", setNames(r.Sets)})
	}
	st := s.Stats()
	o.line("summary", field{"objects", st.Objects}, field{"tombstones", st.Tombstones}, field{"blocks", st.Blocks}, field{"used_blocks", s.sb.Blocks - s.blocks.free},
		field{"sequence", st.Sequence}, field{"pairs", s.pairs.n})
}

func flagNames(f StateFlags) string {
	out := ""
	for i, name := range []string{"tombstone", "void", "unstable"} {
		if f&(1<<i) != 0 {
			if out != "" {
				out += "+"
			}
			out += name
		}
	}
	return out
}

func setNames(sets []PGSet) []string {
	out := []string{}
	for _, set := range sets {
		out = append(out, fmt.Sprintf("%d: %s", uint64(set.Interval), strings.Join(memberNames(set.Members), " ")))
	}
	return out
}

func memberNames(ms []Member) []string {
	out := []string{}
	for _, m := range ms {
		out = append(out, fmt.Sprintf("%d@%v", m.OSD, m.Store))
	}
	return out
}
