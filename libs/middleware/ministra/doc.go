// Package ministra asks a Ministra (Stalker) portal whether a Temporary URL's token
// is good, as a Flussonic server would ask it. README.md has what the operator sets
// in the portal and in the policy.
package ministra
