package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Code names what went wrong; it never changes its meaning. The constants are the registry's.
type Code string

// Error makes a code something to compare with: errors.Is(err, CodeInUse).
func (c Code) Error() string { return string(c) }

// Fault is one thing wrong with a document.
type Fault struct {
	// Pointer is RFC 6901 into the body, or ?name for a query parameter.
	Pointer string `json:"pointer"`
	// Code says which rule.
	Code string `json:"code"`
	// Detail says what to do.
	Detail string `json:"detail"`
}

// Problem is what the service refuses with (RFC 9457). Code is empty when something else than the service answered.
type Problem struct {
	Type      string  `json:"type"`
	Title     string  `json:"title"`
	Status    int     `json:"status"`
	Detail    string  `json:"detail"`
	Instance  string  `json:"instance"`
	Code      Code    `json:"code"`
	Errors    []Fault `json:"errors"`
	Retryable bool    `json:"retryable"`
	RequestID string  `json:"request_id"`
	// RetryAfter is zero when the answer named no time.
	RetryAfter time.Duration `json:"-"`
}

// Error is one line with everything a reader can act on.
func (p *Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%d %s)", p.Detail, p.Status, p.Code)
	for _, fault := range p.Errors {
		fmt.Fprintf(&b, "; %s: %s", fault.Pointer, fault.Detail)
	}
	if p.RequestID != "" {
		fmt.Fprintf(&b, " [request %s]", p.RequestID)
	}
	return b.String()
}

// Is compares with a Code.
func (p *Problem) Is(target error) bool {
	code, ok := target.(Code)
	return ok && p.Code == code
}

func problem(response *http.Response, body []byte) error {
	p := &Problem{}
	if err := json.Unmarshal(body, p); err != nil || p.Code == "" {
		p = &Problem{Detail: "an answer that is not this API's: is the endpoint right, is a proxy between?"}
	}
	p.Status, p.RetryAfter = response.StatusCode, retryAfter(response.Header)
	return p
}
