package peer

type callState uint8

const (
	callIdle   callState = iota
	callQueued           // waits for the connection
	callSent
	callFailed // waits for its Done
)

// callImpl is the Hub's part of a Call.
type callImpl struct {
	state callState
}
