package policy

import (
	"strconv"
	"strings"

	"usher.internal/libs/config"
)

// everybody is a hundred of a hundred viewers.
const everybody = 100

// enforce reads on, off, or for how many viewers the policy holds, and gives for how many it
// does not.
func (c *compiler) enforce(at path, text string) (shadow int) {
	switch text {
	case "", "on":
		return 0
	case "off":
		return everybody
	}
	number, ok := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 0 || n > everybody || number != strconv.Itoa(n) {
		c.errorf(at, config.Nearest(text, []string{"on", "off"}), `%q is not known; want on, off, or for how many viewers the policy holds, such as 25%%`, text)
		return 0
	}
	return everybody - n
}

// answer finds the check whose word viewers in shadow get, nil if none is named.
func (c *compiler) answer(at path, name string, shadow int) *Check {
	if name == "" {
		if c.doc.Has(at...) {
			c.errorf(at, "", "names no check; leave it out to let everybody in for whom the policy does not hold")
		}
		return nil
	}
	check := c.findCheck(at, name, false)
	if check != nil && shadow == 0 {
		c.warnf(at, "is never asked: the policy's own word holds for everybody here; write enforce: off to try it out")
	}
	return check
}

// answers fills in the checks that nodes name: nodes are read before checks are.
func (c *compiler) answers(files map[string]*fileNode) {
	for name, n := range c.snapshot.Nodes {
		n.Answer = c.answer(path{"nodes", name, "answer"}, files[name].Answer, n.Shadow)
		if n.Rechecks && n.Shadow > 0 && n.Answer == nil {
			c.warnf(path{"nodes", name, "enforce"}, "lets nobody publish, if on_publish asks this node: name the check that answers (answer), or leave on_publish as it is")
		}
	}
}
