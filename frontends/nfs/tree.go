package nfs

import (
	"errors"

	"holdfast/core/loop"
	"holdfast/frontends/volume"
)

// Tree is the file tree that a Server serves: regular files are images, named by the image; a '/' in an image's name makes directories, and directories may also exist on
// their own. Several Servers on several loops share one Tree. memtree is one in memory, for tests.
type Tree interface {
	// Cluster is the cluster's identity; it never changes. File handles, fsid and the write verifier derive from it, so that every gateway gives the same ones.
	Cluster() [16]byte
	// Submit starts op, whose Loop is set: exactly one completion, later, on that loop. It never blocks. An outage makes it wait; there is no time limit.
	Submit(op *TreeOp)
}

// ID identifies a file or a directory for ever: an image's id, drawn at its creation and unchanged by rename, snapshot and restart, or a directory's. It is never used again
// for anything else. The zero ID is the root directory.
type ID [16]byte

// Root is the directory that is exported.
var Root ID

// FileType is what an object is, by the numbers of ftype3 (RFC 1813, section 2.5). 0 marks an Attr that is not known.
type FileType uint8

// The types of objects in a Tree.
const (
	Regular   FileType = 1 // NF3REG
	Directory FileType = 2 // NF3DIR
	Symlink   FileType = 5 // NF3LNK; a Tree need not have any
)

// Time is nanoseconds since 1970 UTC.
type Time int64

// Attr are the attributes of an object at one moment. The zero Attr stands for "not known".
type Attr struct {
	Type     FileType
	Mode     uint32 // permission bits, 07777
	Nlink    uint32
	UID, GID uint32
	Size     uint64 // bytes, to the byte; what a Device holds beyond it (up to its block size) reads as zeroes and stays so
	Used     uint64 // bytes of storage
	ID       ID
	Atime    Time
	Mtime    Time
	Ctime    Time // grows with each change, of data or attributes, on whichever gateway
}

// Known reports whether a holds attributes.
func (a *Attr) Known() bool { return a.Type != 0 }

// TreeKind is what a TreeOp does.
type TreeKind uint8

// The kinds of a TreeOp, with the fields that each reads and sets. Err is set by all; Attr, Dir and ToDir also with an error when they are known, Pre, DirPre and ToDirPre when they were
// observed in one step with the change.
const (
	// TreeAttr: the attributes of ID. Sets Attr. It is answered from what this process knows, without waiting for data.
	TreeAttr TreeKind = iota + 1
	// TreeLookup: Name (".." included) in the directory ID. Sets Attr (of what was found) and Dir.
	TreeLookup
	// TreeOpen: the data of the file ID. Sets Device and Attr.
	TreeOpen
	// TreeCreate: a file Name in the directory ID, as How says. Sets Attr, Dir, DirPre.
	//  Unchecked: an existing file is taken as it is, but Set.Size, if in Set.Mask, is applied to it.
	//  Guarded: an existing name is ErrExists.
	//  Exclusive: an existing file is taken if it was created with the same Verifier, which is kept with it, and ErrExists otherwise.
	TreeCreate
	// TreeMkdir: a directory Name in the directory ID. Sets Attr, Dir, DirPre.
	TreeMkdir
	// TreeRemove: the file Name in the directory ID ceases to exist, with its data. Sets Dir, DirPre.
	TreeRemove
	// TreeRmdir: the empty directory Name in the directory ID ceases to exist. Sets Dir, DirPre.
	TreeRmdir
	// TreeRename: Name in ID becomes ToName in ToID; an existing file, or empty directory, there is replaced in the same
	// step, anything else there is ErrExists (RFC 1813, section 3.3.14). Sets Dir, DirPre, ToDir, ToDirPre.
	TreeRename
	// TreeSetAttr: the attributes in Set of ID. With Guard it fails with ErrNotSync unless ctime is GuardCtime, in the same step. When the size falls, what is cut off reads
	// as zeroes if the file grows again. Sets Attr, Pre.
	TreeSetAttr
	// TreeGrow: the size of the file ID becomes at least Size, durably. Sets Attr, Pre.
	TreeGrow
	// TreeTouch: data of the file ID was written: mtime and ctime grow. They may become durable later, but never go back. Sets Attr, Pre.
	TreeTouch
	// TreeReadDir: at most Max entries of the directory ID after Cookie (0: from the start). Sets Entries, EOF, CookieVerf, Parent, Dir. A Cookie stays good while entries
	// come and go; if not 0 and CookieVerf has changed since, ErrBadCookie.
	TreeReadDir
	// TreeSymlink: a symbolic link Name in the directory ID that says Target. Sets Attr, Dir, DirPre. A Tree without links answers volume.ErrUnsupported.
	TreeSymlink
	// TreeReadLink: what the symbolic link ID says; ErrInvalid when it is something else. Sets Target, Attr.
	TreeReadLink
	// TreeFSStat: the space of the whole file system. Sets Space, and Attr of ID.
	TreeFSStat
)

// CreateHow is the mode of a CREATE, by the numbers of createmode3 (RFC 1813, section 3.3.8).
type CreateHow uint8

// The modes of TreeCreate.
const (
	Unchecked CreateHow = 0
	Guarded   CreateHow = 1
	Exclusive CreateHow = 2
)

// The bits of SetAttr.Mask.
const (
	SetMode     = 1 << iota
	SetUID      //
	SetGID      //
	SetSize     //
	SetAtime    // to Atime
	SetAtimeNow // to the server's time
	SetMtime
	SetMtimeNow
)

// SetAttr are attributes to be set: those named in Mask.
type SetAttr struct {
	Mask     uint8
	Mode     uint32
	UID, GID uint32
	Size     uint64
	Atime    Time
	Mtime    Time
}

// Entry is one name in a directory.
type Entry struct {
	Name   string
	Cookie uint64 // more than 0 and less than 1<<63
	Attr   Attr
}

// Space is the room of a file system, bytes and number of files (RFC 1813, section 3.3.18).
type Space struct {
	TotalBytes, FreeBytes, AvailBytes uint64
	TotalFiles, FreeFiles, AvailFiles uint64
	MaxFileSize                       uint64
	Symlinks                          bool // the Tree can hold symbolic links
}

// TreeOp is one request to a Tree. The Server pools it and sets Done once; the Tree owns it from Submit to Done.
type TreeOp struct {
	Kind TreeKind
	Loop loop.Loop
	// ID is the file, or the directory that Name is in.
	ID     ID
	Name   string
	ToID   ID
	ToName string

	How        CreateHow
	Verifier   [8]byte
	Set        SetAttr
	Guard      bool
	GuardCtime Time
	Size       uint64
	Cookie     uint64
	CookieVerf [8]byte // also a result
	Target     string  // of a symbolic link; also a result
	Max        int
	// UID and GID are who asks, for the owner of what is created.
	UID, GID uint32

	Attr, Pre       Attr
	Dir, DirPre     Attr
	ToDir, ToDirPre Attr
	Parent          ID
	Device          volume.Device
	Entries         []Entry // the slice is reused
	EOF             bool
	Space           Space
	Err             error

	Done func(*TreeOp)
	// User is the Server's.
	User any
	// Task and Next are the Tree's.
	Task loop.Task
	Next *TreeOp
}

// Complete ends op with its result. Trees call it, once, on op.Loop, never inside Submit.
func (op *TreeOp) Complete(err error) {
	op.Err = err
	op.Done(op)
}

// Errors of a Tree, besides those of volume.
var (
	ErrNotFound    = errors.New("no such file or directory")
	ErrExists      = errors.New("the name exists")
	ErrNotDir      = errors.New("not a directory")
	ErrIsDir       = errors.New("is a directory")
	ErrNotEmpty    = errors.New("the directory is not empty")
	ErrStale       = errors.New("the file no longer exists")
	ErrName        = errors.New("the name cannot be an image's")
	ErrNameTooLong = errors.New("the name is too long")
	ErrNotSync     = errors.New("the file was changed since")
	ErrBadCookie   = errors.New("the place in the directory is no longer known")
	ErrTooBig      = errors.New("larger than an image can be")
	ErrRefused     = errors.New("not allowed on this image")
	ErrInvalid     = errors.New("not possible on this kind of file")
	ErrTooMany     = errors.New("no more files can be created")
)

// TreeErrors lists every error above, for the test of the translation table.
var TreeErrors = []error{
	ErrNotFound, ErrExists, ErrNotDir, ErrIsDir, ErrNotEmpty, ErrStale, ErrName, ErrNameTooLong, ErrNotSync, ErrBadCookie, ErrTooBig, ErrRefused, ErrInvalid, ErrTooMany,
}
