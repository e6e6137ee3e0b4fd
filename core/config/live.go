package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// Live is the configuration of one process while it runs. It keeps the sources, resolves them again when config/global or the file changes, and tells the parts of the process, each
// on its own loop.
//
// A value that cannot be used is refused with a line in the log, and what its source said before stays in force; it is complained of once. What only counts at the start is named in
// the log, too. Its methods may be called from any goroutine.
type Live struct {
	use Component
	log *slog.Logger

	mu    sync.Mutex
	now   *Values                    // guarded by mu
	file  map[string]json.RawMessage // guarded by mu: what is in force of the file; nil before its first change
	begun bool                       // guarded by mu: config/global was read once
	said  map[string]bool            // guarded by mu: complaints that still hold
	parts []*Part                    // guarded by mu
}

// Part is what one loop's share of a process wants to be told. End it before the loop stops.
type Part struct {
	live    *Live
	post    func(func())
	setters []setter // guarded by live.mu
}

type setter struct {
	names []string
	set   func(*Values)
}

// NewLive begins with v. use is what the process consists of: changes of other parameters are nobody's business there.
func NewLive(v *Values, use Component, log *slog.Logger) *Live {
	return &Live{use: use, log: log, now: v, said: map[string]bool{}}
}

// Values is the configuration now.
func (l *Live) Values() *Values {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// Part makes the share of a loop; post has a function run on it, later, and is called under a lock.
func (l *Live) Part(post func(func())) *Part {
	p := &Part{live: l, post: post}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts = append(l.parts, p)
	return p
}

// On has set called when one of the parameters, which must be Online, changes: now, with the present values, and later on the part's loop. It is called on that loop.
func (p *Part) On(set func(*Values), names ...string) {
	for _, name := range names {
		if byName[name] == nil || byName[name].Effect != Online {
			panic("config: " + name + " is no parameter that changes online")
		}
	}
	p.live.mu.Lock()
	p.setters = append(p.setters, setter{names, set})
	v := p.live.now
	p.live.mu.Unlock()
	set(v) // a change from here on is posted, and so comes after it
}

// End has nothing called any more, but for what is posted already.
func (p *Part) End() {
	p.live.mu.Lock()
	defer p.live.mu.Unlock()
	p.setters = nil
	p.live.parts = slices.DeleteFunc(p.live.parts, func(o *Part) bool { return o == p })
}

// Registered are the parameters that somebody is told of, sorted.
func (l *Live) Registered() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, p := range l.parts {
		for _, s := range p.setters {
			names = append(names, s.names...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// SetEtcd takes config/global as it is now; nil when the key does not exist. The first time belongs to the start and is not announced as a change.
func (l *Live) SetEtcd(global map[string]json.RawMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.now.sources
	s.Etcd = l.usable(FromEtcd, "etcd config/global ", global, s.Etcd)
	l.take(s, l.begun)
	l.begun = true
}

// Reload reads the configuration file again.
func (l *Live) Reload() {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.now.sources
	b, err := os.ReadFile(s.FileName)
	if errors.Is(err, fs.ErrNotExist) && len(s.File) == 0 {
		l.log.Info("there is no configuration file", "file", s.FileName)
		return
	}
	var next map[string]json.RawMessage
	if err == nil {
		if err = json.Unmarshal(b, &next); err != nil { // also when it is empty, as while somebody writes it
			err = fmt.Errorf("not a JSON object: %w", err)
		}
	}
	if err != nil {
		l.log.Error("the configuration file cannot be used; what it said before stays in force", "file", s.FileName, "err", err)
		return
	}
	if l.file == nil {
		_ = json.Unmarshal(s.File, &l.file) // it was valid when the process started, or empty
	}
	l.file = l.usable(FromFile, s.FileName+" ", next, l.file)
	if s.File, err = json.Marshal(l.file); err != nil {
		l.log.Error("the configuration file cannot be used; what it said before stays in force", "file", s.FileName, "err", err)
		return
	}
	l.log.Info("read the configuration file again", "file", s.FileName)
	l.take(s, true)
}

// usable is next without what cannot be used, for which what was in force before stands in.
func (l *Live) usable(from Source, where string, next, before map[string]json.RawMessage) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(next))
	old := l.said
	l.said = map[string]bool{}
	for text := range old {
		if !strings.HasPrefix(text, where) { // of the other source
			l.said[text] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(next)) {
		scratch := Values{set: map[string]setting{}}
		faults := scratch.fromJSON(nil, from, where+name, name, next[name])
		if len(faults) == 0 {
			out[name] = next[name]
			for _, w := range scratch.Warnings {
				if l.said[w] = true; !old[w] {
					l.log.Warn("a parameter has no effect", "what", w)
				}
			}
			continue
		}
		if raw, ok := before[name]; ok {
			out[name] = raw
		}
		text := faults[0].Error()
		if l.said[text] = true; old[text] {
			continue
		}
		args := []any{"parameter", name, "err", text}
		if p := byName[name]; p != nil {
			s := l.now.set[name]
			args = append(args, "in_force", p.shown(s.value), "from", s.from.String())
		}
		l.log.Error("a value is refused; correct it", args...)
	}
	return out
}

// take makes s the sources.
func (l *Live) take(s Sources, tell bool) {
	next, err := Load(s)
	if err != nil { // flags and environment were right when the process started, the rest has been looked at
		l.log.Error("the configuration cannot be resolved; what was in force stays", "err", err)
		return
	}
	online, restart := Changed(l.now, next, All)
	l.now = next
	for _, name := range online {
		if p := byName[name]; tell && p.Used&l.use != 0 {
			l.log.Info("configured", "parameter", name, "value", p.shown(next.set[name].value), "from", next.From(name).String())
		}
	}
	for _, name := range restart {
		if p := byName[name]; tell && p.Used&l.use != 0 {
			l.log.Warn("a parameter was changed that takes effect "+p.Effect.when(), "parameter", name, "value", p.shown(next.set[name].value), "from", next.From(name).String())
		}
	}
	for _, p := range l.parts {
		for _, s := range p.setters {
			if slices.ContainsFunc(s.names, func(name string) bool { return slices.Contains(online, name) }) {
				p.post(func() { s.set(next) })
			}
		}
	}
}

// when says in words when a change takes effect.
func (e Effect) when() string {
	switch e {
	case AtFormat:
		return "for what is formatted or made from now on"
	case AtStart:
		return "when the daemon starts again"
	}
	return "at once"
}

// shown is a value for logs and listings.
func (p *Param) shown(v any) string {
	text := p.format(v)
	if p.Secret && text != "" {
		return masked
	}
	return text
}
