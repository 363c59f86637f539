//go:build !race

package cluster_test

// buildFlags build the program as the tests were built, so that little is compiled twice.
var buildFlags []string
