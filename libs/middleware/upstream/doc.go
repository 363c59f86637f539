// Package upstream is what all kinds of middlewares share: the connections, the
// common options, the rules of spec astra §5 on what an answer means, and the care
// with a viewer's query. A kind adds a Dialect: how the question is put and what
// its own answers mean.
package upstream
