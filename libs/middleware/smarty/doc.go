// Package smarty asks Microimpulse Smarty whether a stream service token is good,
// by its method StreamServiceTokenCheck. README.md has what the operator sets there and
// in the policy.
package smarty
