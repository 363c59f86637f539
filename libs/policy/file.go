package policy

import (
	"usher.internal/libs/config"
)

// The file as it is written. Pointers tell what was left out. Keys of DESIGN.md
// that this version cannot serve yet are decoded, so that the message can say so.

type file struct {
	Version   *int                    `yaml:"version"`
	Defaults  fileDefaults            `yaml:"defaults"`
	Nodes     map[string]*fileNode    `yaml:"nodes"`
	Networks  map[string]*fileNetwork `yaml:"networks"`
	Checks    map[string]*config.Raw  `yaml:"checks"`
	Aliases   *fileAliases            `yaml:"aliases"`
	Clients   map[string]*fileClient  `yaml:"clients"`
	Rules     []*fileOwn              `yaml:"rules"`
	Streams   []*fileRule             `yaml:"streams"`
	Retention fileRetention           `yaml:"retention"`
}

type fileDefaults struct {
	Lease         *config.Duration `yaml:"lease"`
	Idle          *config.Duration `yaml:"idle"`
	OnUnavailable string           `yaml:"on_unavailable"`
	Grace         *config.Duration `yaml:"grace"`
	GraceKnown    *config.Duration `yaml:"grace_known"`
}

type fileRetention struct {
	Steps     *config.Duration `yaml:"steps"`
	Decisions *config.Duration `yaml:"decisions"`
	Sessions  *config.Duration `yaml:"sessions"`
	Usage     *config.Duration `yaml:"usage"`
	Grants    *config.Duration `yaml:"grants"`
	Addresses *config.Duration `yaml:"addresses"`
}

type fileNode struct {
	Caller         string           `yaml:"caller"`
	From           []config.Prefix  `yaml:"from"`
	Edge           string           `yaml:"edge"`
	URL            string           `yaml:"url"`
	Token          []string         `yaml:"token"`
	Device         string           `yaml:"device"`
	Segments       string           `yaml:"segments"`
	SessionKeys    []string         `yaml:"session_keys"`
	ClientIP       *fileClientIP    `yaml:"client_ip"`
	Lease          *config.Duration `yaml:"lease"`
	Idle           *config.Duration `yaml:"idle"`
	Hold           *config.Duration `yaml:"hold"`
	Budget         *config.Duration `yaml:"budget"`
	RedirectStatus *int             `yaml:"redirect_status"`
	Control        *fileControl     `yaml:"control"`
	Headers        *string          `yaml:"headers"`
	Enforce        string           `yaml:"enforce"`
	Answer         string           `yaml:"answer"`
}

// fileControl is how the edge beside a node reaches its control API.
type fileControl struct {
	URL      string           `yaml:"url"`
	User     string           `yaml:"user"`
	Password config.Secret    `yaml:"password"`
	Poll     *config.Duration `yaml:"poll"`
	Timeout  *config.Duration `yaml:"timeout"`
	Kick     *string          `yaml:"kick"`
}

type fileClientIP struct {
	Header string          `yaml:"header"`
	Trust  []config.Prefix `yaml:"trust"`
}

// fileCheck are the keys that every check has beside its type's own.
type fileCheck struct {
	Type          string   `yaml:"type"`
	Realm         string   `yaml:"realm"`
	OnUnavailable string   `yaml:"on_unavailable"`
	For           *fileFor `yaml:"for"`
}

// fileUpstream are the keys that every middleware has besides.
type fileUpstream struct {
	From     string           `yaml:"from"`
	Grant    *config.Duration `yaml:"grant"`
	GrantMax *config.Duration `yaml:"grant_max"`
}

// fileFor narrows the questions that a check is asked.
type fileFor struct {
	Host    []string `yaml:"host"`
	Node    []string `yaml:"node"`
	Network []string `yaml:"network"`
	Token   *string  `yaml:"token"`
}

type fileAliases struct {
	Map    map[string]string `yaml:"map"`
	HTTP   *fileAliaser      `yaml:"http"`
	Strict bool              `yaml:"strict"`
}

type fileAliaser struct {
	URL     string           `yaml:"url"`
	Timeout *config.Duration `yaml:"timeout"`
	Cache   *config.Duration `yaml:"cache"`
}

type fileClient struct {
	Kind     string          `yaml:"kind"`
	Token    []string        `yaml:"token"`
	IP       []config.Prefix `yaml:"ip"`
	Network  []string        `yaml:"network"`
	UA       []string        `yaml:"ua"`
	Streams  []string        `yaml:"streams"`
	Sessions *int            `yaml:"sessions"`
	Until    string          `yaml:"until"`
}

type fileRule struct {
	Match         string            `yaml:"match"`
	When          *string           `yaml:"when"`
	Rules         []*fileOwn        `yaml:"rules"`
	Allow         fileLists         `yaml:"allow"`
	Deny          fileLists         `yaml:"deny"`
	Domains       []string          `yaml:"domains"`
	DenyEmpty     bool              `yaml:"deny_empty_referer"`
	Auth          *fileAuth         `yaml:"auth"`
	Limit         *fileLimits       `yaml:"limit"`
	Archive       *fileArchive      `yaml:"archive"`
	OnDeny        map[string]string `yaml:"on_deny"`
	Lease         *config.Duration  `yaml:"lease"`
	Enforce       string            `yaml:"enforce"`
	Answer        string            `yaml:"answer"`
	OnUnavailable string            `yaml:"on_unavailable"`
	Uncounted     string            `yaml:"uncounted"`
	Grace         *config.Duration  `yaml:"grace"`
	GraceKnown    *config.Duration  `yaml:"grace_known"`
	Examples      []*fileExample    `yaml:"examples"`
}

type fileLists struct {
	Token   []string        `yaml:"token"`
	IP      []config.Prefix `yaml:"ip"`
	Network []string        `yaml:"network"`
	Country []string        `yaml:"country"`
	ASN     []uint32        `yaml:"asn"`
	UA      []string        `yaml:"ua"`
}

type fileLimit struct {
	Sessions *int             `yaml:"sessions"`
	Max      *int             `yaml:"max"`
	By       string           `yaml:"by"`
	Mode     string           `yaml:"mode"`
	CutAfter *config.Duration `yaml:"cut_after"`
	Enforce  string           `yaml:"enforce"`
	When     *string          `yaml:"when"`
	Scope    string           `yaml:"scope"`
}

// fileLimits is one limit or a list of them.
type fileLimits struct {
	one  fileLimit
	list []fileLimit
}

// Shape implements config.Shaper.
func (l *fileLimits) Shape(kind config.Kind) any {
	switch kind {
	case config.Map:
		return &l.one
	case config.List:
		return &l.list
	default:
		return nil
	}
}

// Wants implements config.Shaper.
func (l *fileLimits) Wants() string { return "a map such as {sessions: 2}" }

// fileAuth is a word or a choice of checks.
type fileAuth struct {
	word   string
	choice struct {
		Any []string `yaml:"any"`
		All []string `yaml:"all"`
	}
}

const authForms = "allow, deny, the name of a check, {any: [...]} or {all: [...]}"

// Shape implements config.Shaper.
func (a *fileAuth) Shape(kind config.Kind) any {
	switch kind {
	case config.Scalar:
		return &a.word
	case config.Map:
		return &a.choice
	default:
		return nil
	}
}

// Wants implements config.Shaper.
func (a *fileAuth) Wants() string { return authForms }

type fileExample struct {
	URL       string `yaml:"url"`
	Stream    string `yaml:"stream"`
	Node      string `yaml:"node"`
	IP        string `yaml:"ip"`
	UserAgent string `yaml:"user_agent"`
	Referer   string `yaml:"referer"`
	Country   string `yaml:"country"`
	ASN       uint32 `yaml:"asn"`
	Token     string `yaml:"token"`
	At        string `yaml:"at"`
	Expect    string `yaml:"expect"`
}
