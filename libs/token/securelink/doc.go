// Package securelink verifies and signs the links of nginx's secure_link module, with which
// Ministra's "NGINX secure link", Gcore and many home-made portals are compatible: a hash over
// whatever the operator writes, carried in the query or in the path.
//
// It needs no token of the node's own: the proof stands in the address. README.md lists
// where it is stricter than nginx, and why.
package securelink
