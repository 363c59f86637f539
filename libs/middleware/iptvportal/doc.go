// Package iptvportal asks IPTVportal whether a viewer may watch, in either of the
// two forms that it has. README.md has what the operator sets in the portal and in
// the policy.
package iptvportal
