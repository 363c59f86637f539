package policyimport

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
	"usher.internal/libs/subscriber"
)

// astra turns Astra's configuration into a draft.
type astra struct {
	*draft
	rule  rule
	users [][]string
	// password says that a user can only come with login and password.
	password bool
}

// Astra reads users and authorization of Astra's JSON configuration. The error is a *BadFile.
func Astra(data []byte, o Options) (*Result, error) {
	file, err := parseAstra(data)
	if err != nil {
		return nil, err
	}
	a := &astra{draft: newDraft(), rule: rule{mode: "deny"}}
	a.accounts(file.Users)
	a.settings(file.Settings, "settings")
	if len(a.users) > 0 {
		options := ""
		if a.password {
			options = ", allow_password: true"
		}
		name := a.name("subscribers")
		fmt.Fprintf(&a.checks, "  %s: {type: users%s}\n", name, options)
		a.rule.checks = append(a.rule.checks, name)
	}
	if len(a.rule.checks) == 0 {
		a.rule.notes = append(a.rule.notes, a.note("no authorization was found; Astra lets everybody in then, this policy nobody until auth names a check"))
	}
	a.open(file.Streams)
	for _, n := range a.rule.notes {
		a.rules.WriteString(comment("  ", n))
	}
	fmt.Fprintf(&a.rules, "  - match: \"**\"\n%s", a.rule.text())
	return &Result{Policy: a.render("Astra's configuration", "astra", o), Users: a.csv(), Notes: a.notes}, nil
}

// accounts are Astra's users as lines of the CSV.
func (a *astra) accounts(users []astraUser) {
	staff := 0
	for _, u := range users {
		kind := number(u.Fields["type"])
		if kind == 1 || kind == 2 {
			staff++
			continue
		}
		if subscriber.CheckUser(u.Login) != nil {
			a.top = append(a.top, a.note("a user was left out: %q is no login that can be kept", shown(u.Login)))
			continue
		}
		a.users = append(a.users, a.account(u))
	}
	if staff > 0 {
		a.top = append(a.top, a.note("%d administrators and observers of Astra's web interface were left out", staff))
	}
}

func (a *astra) account(u astraUser) []string {
	f := u.Fields
	token, login := text(f["token"]), u.Login
	if err := subscriber.CheckToken(token); err != nil {
		a.top = append(a.top, a.note("user %s: the token was left out: %s", shown(u.Login), err))
		token = ""
	}
	if subscriber.CheckLogin(login) != nil {
		login = ""
	}
	hashed := text(f["password"]) != "" || text(f["cipher"]) != ""
	if hashed && token == "" {
		a.password = true
		a.top = append(a.top, a.note("user %s: Astra keeps a hash of the password, which cannot be carried over: give a new one", shown(u.Login)))
	}
	limit := number(f["conlimit"])
	if limit == 0 {
		limit = number(f["connlimit"])
	}
	sessions := ""
	if limit > 0 && limit <= 1_000_000 {
		sessions = strconv.FormatInt(limit, 10)
	}
	blocked := "no"
	if !yes(f["enable"]) {
		blocked = "yes"
	}
	address := strings.Join(words(f["ip"]), ",")
	if _, err := subscriber.ParseNetworks(address); err != nil {
		a.top = append(a.top, a.note("user %s: the address cannot be read; blocked, so that nobody comes from another one", shown(u.Login)))
		address, blocked = "", "yes"
	}
	packages := words(f["packages"])
	if packages == nil {
		packages = words(f["packs"])
	}
	return []string{
		u.Login, one(text(f["comment"]), 256), token, login, "", one(strings.Join(packages, ","), 4096),
		sessions, until(f["expire"]), address, blocked,
	}
}

// one is a text of one line, as a field of the CSV may hold it.
func one(s string, limit int) string {
	return access.Clean(strings.Join(strings.Fields(s), " "), limit)
}

// csv is the file for usher users import csv, nil if there is nobody.
func (a *astra) csv() []byte {
	if len(a.users) == 0 {
		return nil
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write([]string{"user", "name", "token", "login", "password", "packages", "sessions", "until", "ip", "blocked"}) // a buffer takes all
	_ = w.WriteAll(a.users)
	return b.Bytes()
}

// settings searches for what authorizes: Astra's documentation does not name the keys.
func (a *astra) settings(settings map[string]any, place string) {
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		value, where := settings[key], place+"."+key
		name := strings.ToLower(where)
		switch {
		case object(value) != nil:
			a.settings(object(value), where)
		case strings.Contains(name, "securetoken") || strings.Contains(name, "secure_token"):
			a.securetoken(value, where)
		case strings.Contains(name, "backend") && strings.Contains(text(value), "://"):
			a.backend(text(value), strings.ToLower(kindOf(settings)), where)
		case strings.Contains(name, "auth") && (strings.Contains(name, "allow") || strings.HasSuffix(name, "ip")):
			a.rule.list(a.draft, 0, "allow", "ip", words(value))
		case strings.Contains(name, "auth") && strings.Contains(name, "deny"):
			a.rule.list(a.draft, 0, "deny", "ip", words(value))
		case strings.Contains(name, "auth") && text(value) != "" && !strings.Contains(name, "type"):
			a.rule.notes = append(a.rule.notes, a.note("%s was not carried over", shown(where)))
		}
	}
}

func (a *astra) securetoken(value any, where string) {
	if _, isSwitch := value.(bool); isSwitch || text(value) == "" {
		return
	}
	reference, note := a.secret("the key of "+shown(where), 0)
	name := a.name("securetoken")
	a.checks.WriteString(comment("  ", note))
	fmt.Fprintf(&a.checks, "  %s: {type: securetoken, secret: %s, bind: stream}\n", name, quote(reference))
	a.rule.checks = append(a.rule.checks, name)
}

// kindOf is the backend's kind, if a key beside it says so.
func kindOf(settings map[string]any) string {
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		if strings.Contains(strings.ToLower(key), "type") {
			if s := text(settings[key]); s != "" {
				return s
			}
		}
	}
	return ""
}

// backend is the address behind Settings, HTTP Auth, by its kind or its path.
func (a *astra) backend(raw, kind, where string) {
	address, notes, ok := a.address(raw, 0)
	a.rule.notes = append(a.rule.notes, notes...)
	if !ok {
		a.rule.notes = append(a.rule.notes, a.note("%s is no address that can be carried over", shown(where)))
		return
	}
	hint, product := kind+" "+strings.ToLower(address), "http"
	switch {
	case strings.Contains(hint, "stalker"), strings.Contains(hint, "ministra"):
		product = "ministra"
	case strings.Contains(hint, "iptvportal"), strings.Contains(hint, "arescrypt"):
		product = "iptvportal"
	case strings.Contains(hint, "smarty"), strings.Contains(hint, "microimpulse"):
		product = "smarty"
	}
	name := a.name(product)
	fmt.Fprintf(&a.checks, "  %s: {type: %s, url: %s}\n", name, product, quote(address))
	a.rule.checks = append(a.rule.checks, name)
	a.rule.notes = append(a.rule.notes, a.note("%s: Astra lets viewers in while the backend is silent; here on_unavailable: grace lets known viewers go on", shown(where)))
}

// open writes a rule for each stream with an output that needs no authorization.
func (a *astra) open(streams []map[string]any) {
	for _, s := range streams {
		id := text(s["id"])
		for _, output := range words(s["output"]) {
			if !strings.Contains(output, "#no_auth") && !strings.Contains(output, "&no_auth") {
				continue
			}
			if _, err := match.ParseGlob(id); err != nil || strings.Contains(id, "*") {
				continue
			}
			a.rules.WriteString(comment("  ", a.note("stream %s has an output with no_auth", shown(id))))
			fmt.Fprintf(&a.rules, "  - {match: %s, auth: allow}\n", quote(id))
			break
		}
	}
}
