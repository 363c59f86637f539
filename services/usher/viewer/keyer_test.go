package viewer_test

import (
	"testing"

	"usher.internal/libs/access"
)

func testKeyer(t *testing.T) *access.Keyer {
	t.Helper()
	k, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}
