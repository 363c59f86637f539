// Package pgd runs a private PostgreSQL for one process: it finds the server
// programs, makes a cluster in a directory, keeps its port and password there,
// starts the server or adopts the one that a killed process left running, and stops
// it without losing data. `usher up` and the tests use it; a production cluster
// brings a PostgreSQL of its own.
//
// The directory holds:
//
//	connection.json  port and password (0600)
//	data/            PGDATA, with the server's log files in data/log
//	run/             the unix socket
//	start.log        what the server said before its log files were open
package pgd
