package nats

// Permissions are what one process may do on the bus, for a server's user list or a
// user's JWT: subjects that it may publish to and subscribe to, nothing else. A test
// in libs/bus runs each role on a server that allows exactly these.
type Permissions struct{ Publish, Subscribe []string }

// Names may be wildcards or placeholders in all functions below. hub is the region of policy and
// control stream where there are several regions, else "".

// EdgePermissions hold an edge to its own name in every subject that it asks or
// reports under, to its own projection, and to its own inbox. The name must have
// passed CheckToken, and must be the one that the process connects with.
func EdgePermissions(region, hub, edge string) Permissions {
	projection := "KV_" + ProjectionBucket
	key := "$KV." + ProjectionBucket + "."
	p := Permissions{
		Publish: []string{
			Auth("*", edge), Seats("*", edge), Playlist("*", edge),
			// Not the kind that workers write.
			Journal(region, edge, JournalDecision), Journal(region, edge, JournalRepeats), Journal(region, edge, JournalTotals),
		},
		Subscribe: []string{Inbox(edge), Tick},
	}
	for _, api := range apis(hub) {
		p.Publish = append(p.Publish, readStream(api, ControlStream)...)
		p.Publish = append(p.Publish, readStream(api, projection, key+AnyProjectionKey, key+EdgeProjectionKey(edge))...)
	}
	return p
}

// WorkerPermissions let a worker answer its region, tell edges, follow what operators order,
// and journal what it decided while Postgres was away. Replies may go to inboxes only, so that an edge
// cannot have a worker publish on a control subject by naming it as reply subject.
func WorkerPermissions(region, hub, worker string) Permissions {
	p := Permissions{
		Publish: []string{
			"_INBOX.>", "_R_.>",
			Tick, ControlAll, EventAll,
			Journal(region, "*", JournalUncounted),
		},
		Subscribe: []string{
			Inbox(worker), Tick,
			AuthOf(region) + " " + QueueGroup,
			SeatsOf(region) + " " + QueueGroup,
			PlaylistOf(region) + " " + QueueGroup,
		},
	}
	for _, api := range apis(hub) {
		p.Publish = append(p.Publish, readStream(api, ControlStream)...)
		p.Publish = append(p.Publish, readStream(api, "KV_"+PolicyBucket, "$KV."+PolicyBucket+"."+PolicyKey)...)
	}
	return p
}

// RecorderPermissions let a recorder make the streams of all regions, read the journal, spread the
// policy, publish what the outbox still holds, and compare what the control stream holds of
// directives with the database. It is the one role that may change streams.
func RecorderPermissions(recorder string) Permissions {
	return Permissions{
		Publish: []string{
			ControlAll, EventAll,
			"$JS.API.>", DomainAPI("*") + ".>",
			"$KV." + PolicyBucket + ".>",
			"$KV." + ProjectionBucket + ".>",
		},
		Subscribe: []string{Inbox(recorder)},
	}
}

// LinkPermissions are what may cross from a region to the hub (Publish) and from the hub to the
// region (Subscribe) over the link between their NATS servers: the region's edges ask and are
// answered, its workers tell all edges, and the hub sources its journal.
func LinkPermissions(region, hub string) Permissions {
	p := Permissions{
		Publish: []string{
			Auth("*", "*"), Seats("*", "*"), Playlist("*", "*"),
			Tick, ControlAll, EventAll,
			// Replies to processes and to servers, and the journal on its way to the stream that sources it.
			"_INBOX.>", "_R_.>", "$JSC.R.>", "$JS.S.>",
		},
		Subscribe: []string{
			AuthOf(region), SeatsOf(region), PlaylistOf(region),
			Tick, ControlAll, EventAll,
			"_INBOX.>", "_R_.>", "$JS.ACK.>", "$JS.FC.>",
			DomainAPI(region) + ".>",
		},
	}
	projection, policy := "KV_"+ProjectionBucket, "KV_"+PolicyBucket
	for _, stream := range []string{ControlStream, projection, policy} {
		p.Publish = append(p.Publish, readStream(DomainAPI(hub), stream)...)
	}
	p.Publish = append(p.Publish,
		DomainAPI(hub)+".CONSUMER.CREATE."+projection+".*.$KV."+ProjectionBucket+".>",
		DomainAPI(hub)+".CONSUMER.CREATE."+policy+".*.$KV."+PolicyBucket+".>",
	)
	return p
}

// readStream are the calls that read one stream: all of it, or only what the filters name.
func readStream(api, stream string, filters ...string) []string {
	calls := []string{
		api + ".STREAM.INFO." + stream,
		api + ".CONSUMER.INFO." + stream + ".*",
		api + ".CONSUMER.MSG.NEXT." + stream + ".*",
		api + ".CONSUMER.DELETE." + stream + ".*",
	}
	if len(filters) == 0 {
		return append(calls, api+".CONSUMER.CREATE."+stream+".*")
	}
	for _, f := range filters {
		calls = append(calls, api+".CONSUMER.CREATE."+stream+".*."+f)
	}
	return calls
}

// apis are the prefixes under which the hub's JetStream is reached: in its own region without its name.
func apis(hub string) []string {
	if hub == "" {
		return []string{"$JS.API"}
	}
	return []string{"$JS.API", DomainAPI(hub)}
}

// Inbox matches all replies to the process of that name. It connects with
// InboxPrefix, so that permissions can keep others from reading them.
func Inbox(name string) string { return InboxPrefix(name) + ".>" }

// InboxPrefix is what the reply subjects of the named process begin with.
func InboxPrefix(name string) string { return "_INBOX." + name }
