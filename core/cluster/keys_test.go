package cluster

import (
	"testing"

	"holdfast/core/layout"
)

func TestKeysSurviveParsing(t *testing.T) {
	pg, inode := layout.PGID{Pool: 2, Num: 17}, layout.MakeInode(3, 9)
	for key, want := range map[string]Key{
		KeyGlobal: {Kind: KindGlobal}, KeyPools: {Kind: KindPools}, KeyPGConfig: {Kind: KindPGConfig}, KeyClusterID: {Kind: KindClusterID}, KeyStats: {Kind: KindStats},
		OSDConfigKey(4):                     {Kind: KindOSDConfig, OSD: 4},
		OSDStateKey(1<<64 - 1):              {Kind: KindOSDState, OSD: 1<<64 - 1},
		OSDStatsKey(4):                      {Kind: KindOSDStats, OSD: 4},
		OSDSpaceKey(4):                      {Kind: KindOSDSpace, OSD: 4},
		OSDInodeStatsKey(4):                 {Kind: KindOSDInodeStats, OSD: 4},
		OSDIdentityKey(4):                   {Kind: KindOSDIdentity, OSD: 4},
		OSDFailureKey(5):                    {Kind: KindOSDFailure, OSD: 5},
		OSDWaitingKey(4):                    {Kind: KindOSDWaiting, OSD: 4},
		InodeKey(inode):                     {Kind: KindInode, Inode: inode},
		InodeStatsKey(inode):                {Kind: KindInodeStats, Inode: inode},
		ImageIndexKey("vm/a@b"):             {Kind: KindImageIndex, Name: "vm/a@b"},
		MaxIDKey(65535):                     {Kind: KindMaxID, Pool: 65535},
		PoolStatsKey(2):                     {Kind: KindPoolStats, Pool: 2},
		PoolIdentityKey(2):                  {Kind: KindPoolIdentity, Pool: 2},
		PGStateKey(pg):                      {Kind: KindPGState, PG: pg},
		PGHistoryKey(pg):                    {Kind: KindPGHistory, PG: pg},
		PGStatsKey(pg):                      {Kind: KindPGStats, PG: pg},
		PGRecordKey(pg):                     {Kind: KindPGRecord, PG: pg},
		MonMemberKey(255):                   {Kind: KindMonMember, Name: "ff"},
		FenceKey(FenceSessionName(1)):       {Kind: KindFence, Name: "session-0000000000000001"},
		GatewayKey("gw1"):                   {Kind: KindGateway, Name: "gw1"},
		PGScrubKey(pg):                      {Kind: KindPGScrub, PG: pg},
		ImageScrubKey(inode):                {Kind: KindImageScrub, Inode: inode},
		ExportKey("a/b"):                    {Kind: KindExport, Name: "a/b"},
		"interval/2/17":                     {Kind: KindPGRecord, PG: pg},
		"config/inode/3/281474976710655":    {Kind: KindInode, Inode: layout.MakeInode(3, layout.MaxInodeNum)},
		"osd/identity/18446744073709551615": {Kind: KindOSDIdentity, OSD: 1<<64 - 1},
	} {
		if got, ok := ParseKey(key); !ok || got != want {
			t.Errorf("ParseKey(%q) = %+v, %v, want %+v", key, got, ok, want)
		}
	}
	for _, key := range []string{
		"", "config", "config/globalx", "config/osd/", "config/osd/0", "config/osd/01", "config/osd/-1", "config/osd/1/2", "config/osd/18446744073709551616", "config/inode/1",
		"config/inode/0/1", "config/inode/65536/1", "config/inode/1/0", "config/inode/1/281474976710656", "config/inode/1/1/1", "pg/state/1/0", "pg/state/1/9999999999", "index/image/",
		"gateway/", "somebody/else",
	} {
		if got, ok := ParseKey(key); ok {
			t.Errorf("ParseKey(%q) = %+v, want nothing", key, got)
		}
	}
}
