// Package crash cuts the power of a store's disk at every moment and looks at what is left.
//
// A run does a sequence of operations on a store in the simulator while every write, sync write and flush of its disk is recorded, together with the moments at which operations
// were submitted and acknowledged. A state is one thing that loss of power may have left of the disk at one point of the recording: durable writes are there, of the others each
// is kept, lost or torn at sector borders. The store is opened on each state and compared with a model that was written from api.go alone: what was acknowledged is there, what
// else is there was submitted, each operation is there whole or not at all, no block is lost or used twice, and the store works on; then the power goes once more.
//
// Everything is drawn from the names of the case and of the state, so a state's name is all that is needed to see it again.
package crash
