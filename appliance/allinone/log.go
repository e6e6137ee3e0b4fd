package allinone

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
)

// maxLog is the size at which the last log is put aside when a cluster starts.
const maxLog = 16 << 20

// openLog opens the log of all parts; what is an error is also written to errs.
func openLog(path string, level slog.Leveler, errs io.Writer) (*slog.Logger, *os.File, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, nil, err
	}
	return slog.New(both{
		slog.NewTextHandler(f, &slog.HandlerOptions{Level: level}),
		slog.NewTextHandler(errs, &slog.HandlerOptions{Level: slog.LevelError}),
	}), f, nil
}

// both writes to two logs, each at its own level.
type both [2]slog.Handler

var _ slog.Handler = both{}

// Enabled reports whether one of them wants the level.
func (b both) Enabled(ctx context.Context, l slog.Level) bool {
	return b[0].Enabled(ctx, l) || b[1].Enabled(ctx, l)
}

// Handle writes to those that want the record.
func (b both) Handle(ctx context.Context, r slog.Record) error {
	var errs [2]error
	for i, h := range b {
		if h.Enabled(ctx, r.Level) {
			errs[i] = h.Handle(ctx, r.Clone())
		}
	}
	return errors.Join(errs[:]...)
}

// WithAttrs adds attributes to both.
func (b both) WithAttrs(a []slog.Attr) slog.Handler {
	return both{b[0].WithAttrs(a), b[1].WithAttrs(a)}
}

// WithGroup opens a group in both.
func (b both) WithGroup(name string) slog.Handler {
	return both{b[0].WithGroup(name), b[1].WithGroup(name)}
}
