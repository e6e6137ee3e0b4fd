package sim

import (
	"bytes"
	"time"

	"holdfast/core/client"
	"holdfast/core/images"
	"holdfast/frontends/volume"
)

// resizing is an operator who makes an image larger while clients write to it, uses what is new, and takes it away again in two steps. Nobody else uses what lies beyond the planned size.
type resizing struct {
	r     *run
	im    *sharedImage
	bs    uint64
	steps []func()
	wrote bool
	id    uint32 // what it writes
}

// resizeImage grows a shared image, writes beyond its old end, shrinks it into the middle of that, grows it again, looks that what had been cut off is zeroes and the rest is not, and makes
// the image as it was.
func (r *run) resizeImage(f *PlannedFault) func() {
	im := r.images[f.N%uint64(len(r.images))]
	if r.resizing[im.n] {
		return r.cannot()
	}
	r.resizing[im.n] = true
	r.removing++
	x := &resizing{r: r, im: im, bs: r.plan.Config.Object(), id: 1<<29 + uint32(f.ID)}
	cut := im.size + x.bs/4
	x.steps = []func(){
		func() { x.resize(im.size + 2*x.bs + x.bs/2) },
		func() { x.write() },
		func() { x.resize(cut) },
		func() { x.resize(im.size + 2*x.bs) },
		func() { x.check(cut) },
		func() { x.resize(im.size) },
	}
	r.operator(x.next)
	return nil
}

// next does the next step, or is the end.
func (x *resizing) next() {
	if len(x.steps) == 0 {
		x.r.cover("image resized under load")
		x.r.resizing[x.im.n] = false
		x.r.removing--
		return
	}
	step := x.steps[0]
	x.steps = x.steps[1:]
	step()
}

// resize changes the size, however often that takes.
func (x *resizing) resize(size uint64) {
	r := x.r
	images.Resize(r.admin, x.im.name, size, images.ResizeOptions{Shrink: true}, func(err error) {
		if err != nil {
			r.logf("resize image %d to %d: %v", x.im.n, size, err)
			r.c.W.After(500*time.Millisecond, func() { r.operator(func() { x.resize(size) }) })
			return
		}
		r.logf("image %d has %d bytes", x.im.n, size)
		x.next()
	})
}

// write fills an object's worth of what is new. It may fail, for lack of space for example; then there is nothing to look for.
func (x *resizing) write() {
	r := x.r
	s := r.admin.NewSession(nil)
	ref := r.admin.Loop().Alloc(int(x.bs))
	fill(ref.Bytes(), x.id, x.im.n, x.im.size)
	op := &client.Op{Kind: client.Write, Session: s, Inode: x.im.id, Offset: x.im.size, Len: x.bs}
	op.Pieces = []client.Piece{{Ref: ref, Len: int(x.bs)}}
	op.Done = func(*client.Op) {
		x.wrote = op.Err == nil
		if op.Err != nil {
			r.logf("write beyond the old end of image %d: %v", x.im.n, op.Err)
			r.coverErr(op.Err)
		}
		ref.Release()
		s.Close(nil)
		x.next()
	}
	r.admin.Submit(op)
}

// check reads everything beyond the old end: up to cut it is what was written, behind that zeroes.
func (x *resizing) check(cut uint64) {
	r := x.r
	want := make([]byte, 2*x.bs)
	if x.wrote {
		fill(want[:x.bs], x.id, x.im.n, x.im.size)
		clear(want[cut-x.im.size:])
	}
	op := &client.Op{Kind: client.Read, Inode: x.im.id, Offset: x.im.size, Len: 2 * x.bs}
	op.Done = func(*client.Op) {
		if op.Err != nil {
			r.fail("reading beyond the old end of image %d: %v", x.im.n, op.Err)
			return
		}
		for i := range op.Parts {
			p := &op.Parts[i]
			at := p.Offset - x.im.size
			if have, want := p.Bytes(), want[at:at+uint64(len(p.Bytes()))]; !bytes.Equal(have, want) {
				r.compareResized(x, p.Offset, have, want, cut)
			}
		}
		op.ReleaseParts()
		if x.wrote {
			r.cover("what a smaller size cut off is gone")
		}
		x.next()
	}
	r.admin.Submit(op)
}

func (r *run) compareResized(x *resizing, off uint64, have, want []byte, cut uint64) {
	for i := range have {
		at := off + uint64(i)
		switch {
		case have[i] == want[i]:
			continue
		case at >= cut:
			r.fail("byte %d of image %d was cut off when the image ended at %d, and is there again", at, x.im.n, cut)
			return
		case x.wrote:
			r.fail("byte %d of image %d was acknowledged, never cut off (the image ended at %d at least), and is not there", at, x.im.n, cut)
			return
		}
	}
}

// told hears what a gateway says of its images.
type told struct{ r *run }

// VolumeEvent implements volume.EventHandler.
func (t told) VolumeEvent(e volume.Event) {
	if e == volume.Resized {
		t.r.cover("gateway heard of another size")
	}
}

// sizes checks that a gateway has heard of the images' last size.
func (p *process) sizes() {
	for i, h := range p.handles {
		if have, want := h.Info().Size, p.s.r.images[i].size; have != want {
			p.s.r.fail("client %d has image %d with %d bytes, it is %d", p.s.n+1, i, have, want)
		}
	}
}
