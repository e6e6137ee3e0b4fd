package admin

// Kind is what class of trouble an Error is; the CLI makes the exit code of it.
type Kind uint8

// The kinds and the exit codes that the CLI gives them.
const (
	Failed      Kind = iota + 1 // 1: it was tried and went wrong
	Usage                       // 2: the command or the configuration is wrong
	NotFound                    // 3: there is no such thing
	Refused                     // 4: it exists already, has changed meanwhile, or must not be done now
	Unreachable                 // 5: the cluster does not answer
	Halted                      // 6: an OSD must not be started again before somebody has looked: its disk has failed or is gone, or its disk or number is another one's
)

// Error says what is wrong, why, and what can be done about it.
type Error struct {
	Kind Kind
	What string // names the thing
	Err  error  // the cause; may be nil
	Way  string // the way out; may be empty
}

func (e *Error) Error() string {
	text := e.What
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Way != "" {
		text += "; " + e.Way
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }
