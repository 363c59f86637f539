package nats

// Permissions are what one process may do on the bus, for a server's user list or a
// user's JWT: subjects that it may publish to and subscribe to, nothing else. A test
// in libs/bus runs an edge and a recorder on a server that allows exactly these.
type Permissions struct{ Publish, Subscribe []string }

// EdgePermissions hold an edge to its own name in every subject that it asks or
// reports under, to its own projection, and to its own inbox. The name must have
// passed CheckToken, and must be the one that the process connects with.
func EdgePermissions(region, edge string) Permissions {
	projection := "KV_" + ProjectionBucket
	key := "$KV." + ProjectionBucket + "."
	return Permissions{
		Publish: []string{
			Auth("*", edge),
			Seats("*", edge),
			Playlist("*", edge),
			Journal(region, edge, "*"),
			"$JS.API.STREAM.INFO." + ControlStream,
			"$JS.API.CONSUMER.CREATE." + ControlStream + ".*",
			"$JS.API.CONSUMER.MSG.NEXT." + ControlStream + ".*",
			"$JS.API.CONSUMER.DELETE." + ControlStream + ".*",
			"$JS.API.STREAM.INFO." + projection,
			"$JS.API.CONSUMER.CREATE." + projection + ".*." + key + AnyProjectionKey,
			"$JS.API.CONSUMER.CREATE." + projection + ".*." + key + EdgeProjectionKey(edge),
			"$JS.API.CONSUMER.MSG.NEXT." + projection + ".*",
			"$JS.API.CONSUMER.DELETE." + projection + ".*",
		},
		Subscribe: []string{Inbox(edge), Tick},
	}
}

// WorkerPermissions let a worker answer its region, tell edges, follow what operators order,
// journal under its own name, and set up the streams. Replies may go to inboxes only, so that an edge
// cannot have a worker publish on a control subject by naming it as reply subject.
func WorkerPermissions(region, worker string) Permissions {
	return Permissions{
		Publish: []string{
			"_INBOX.>", "_R_.>",
			Tick, ControlAll, EventAll,
			Journal(region, worker, "*"),
			"$JS.API.>",
			"$KV." + PolicyBucket + ".>",
			"$KV." + ProjectionBucket + ".>",
		},
		Subscribe: []string{
			Inbox(worker), Tick,
			AuthOf(region) + " " + QueueGroup,
			SeatsOf(region) + " " + QueueGroup,
			PlaylistOf(region) + " " + QueueGroup,
		},
	}
}

// RecorderPermissions let a recorder read its region's journal, publish what the outbox
// still holds, and compare what the control stream holds of directives with the database.
func RecorderPermissions(region, recorder string) Permissions {
	stream := JournalStream(region)
	return Permissions{
		Publish: []string{
			ControlAll, EventAll,
			"$JS.API.STREAM.INFO." + stream,
			"$JS.API.CONSUMER.CREATE." + stream + ".*",
			"$JS.API.CONSUMER.MSG.NEXT." + stream + ".*",
			"$JS.API.CONSUMER.DELETE." + stream + ".*",
			"$JS.API.STREAM.INFO." + ControlStream,
			"$JS.API.STREAM.MSG.GET." + ControlStream,
			"$JS.API.CONSUMER.CREATE." + ControlStream + ".*." + ControlAll,
			"$JS.API.CONSUMER.MSG.NEXT." + ControlStream + ".*",
			"$JS.API.CONSUMER.DELETE." + ControlStream + ".*",
		},
		Subscribe: []string{Inbox(recorder)},
	}
}

// Inbox matches all replies to the process of that name. It connects with
// InboxPrefix, so that permissions can keep others from reading them.
func Inbox(name string) string { return InboxPrefix(name) + ".>" }

// InboxPrefix is what the reply subjects of the named process begin with.
func InboxPrefix(name string) string { return "_INBOX." + name }
