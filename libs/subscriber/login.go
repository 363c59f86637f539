package subscriber

import (
	"errors"
	"net/url"
	"strings"
	"unicode/utf8"

	"usher.internal/libs/access"
)

// Place is where a login or password stands in a viewer's request.
type Place struct {
	parameter string // of the query
	element   int    // of the path, from 1
}

// ErrAmbiguous is a request in which a login stands twice or in a form that two programs
// would read in two ways.
var ErrAmbiguous = errors.New("login or password stands in the request in an ambiguous form")

// SplitLogin reads LOGIN:PASSWORD; false if it is not of that form. The password may
// hold colons, the login cannot.
func SplitLogin(text string) (login, password string, ok bool) {
	login, password, ok = strings.Cut(text, ":")
	return login, password, ok && CheckLogin(login) == nil && password != ""
}

// FindLogin reads login and password from their places; false if there are none. The
// error is ErrAmbiguous.
func FindLogin(places []Place, query, path string) (login, password string, ok bool, err error) {
	values := make([]string, len(places))
	for i, p := range places {
		if values[i], err = p.find(query, path); err != nil {
			return "", "", false, err
		}
	}
	switch {
	case len(values) == 1 && values[0] == "", len(values) == 0:
		return "", "", false, nil
	case len(values) == 1:
		login, password, ok = SplitLogin(values[0])
	default:
		login, password = values[0], values[1]
		ok = CheckLogin(login) == nil && password != ""
	}
	if !ok {
		return "", "", false, nil
	}
	return login, password, true, nil
}

// find is the decoded value, "" if there is none.
func (p Place) find(query, path string) (value string, err error) {
	if p.element > 0 {
		elements := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
		if p.element > len(elements) {
			return "", nil
		}
		value, err = url.PathUnescape(elements[p.element-1])
		return value, strict(value, err)
	}
	found := false
	for rest := query; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		name, text, _ := strings.Cut(pair, "=")
		if name, err = url.QueryUnescape(name); err != nil {
			return "", ErrAmbiguous
		}
		if name != p.parameter {
			continue
		}
		if found {
			return "", ErrAmbiguous
		}
		found = true
		value, err = url.QueryUnescape(text)
		if err = strict(value, err); err != nil {
			return "", err
		}
	}
	return value, nil
}

func strict(value string, err error) error {
	if err != nil || !utf8.ValidString(value) || strings.ContainsFunc(value, control) {
		return ErrAmbiguous
	}
	return nil
}

func control(r rune) bool { return r < 0x20 || r == 0x7f }

var errLogin = errors.New("want 1 to 256 bytes without colons and control characters")

// CheckLogin says what is wrong with a login.
func CheckLogin(login string) error {
	if login == "" || len(login) > access.MaxName || strings.Contains(login, ":") || strict(login, nil) != nil {
		return errLogin
	}
	return nil
}

var errUser = errors.New("want 1 to 256 bytes without control characters")

// CheckUser says what is wrong with a user's id.
func CheckUser(id string) error {
	if id == "" || len(id) > access.MaxName || strict(id, nil) != nil || strings.TrimSpace(id) != id {
		return errUser
	}
	return nil
}
