// Package decide judges a question by one revision of the policy: rule, allow and
// deny lists, domain lock, checks by any or all, and what to do when a check is
// away. It says who the viewer is, what he may hold and for how long; taking the
// seat is the ledger's part (libs/admission). It knows neither NATS nor SQL.
package decide
