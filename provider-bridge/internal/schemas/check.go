package schemas

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// formats says for each format what a value of it looks like, and whether one does.
var formats = map[string]struct {
	words string
	holds func(string) bool
}{
	"ipv4": {"an IPv4 address", func(s string) bool {
		address, err := netip.ParseAddr(s)
		return err == nil && address.Is4()
	}},
	"ipv4-network": {"an IPv4 network like 10.1.0.0/24, host bits zero, /8 to /29", func(s string) bool { return isPrefix(s, 29) }},
	"ipv4-prefix":  {"an IPv4 prefix like 203.0.113.8/29, host bits zero, /8 to /32", func(s string) bool { return isPrefix(s, 32) }},
	"date-time": {"a time like 2026-11-22T10:00:00Z", func(s string) bool {
		_, err := time.Parse(time.RFC3339, s)
		return err == nil
	}},
	"uuid": {"a UUID", uuid.MatchString},
}

func isPrefix(s string, longest int) bool {
	prefix, err := netip.ParsePrefix(s)
	return err == nil && prefix.Addr().Is4() && prefix.Masked() == prefix && prefix.Bits() >= 8 && prefix.Bits() <= longest
}

// Check says what is wrong with a value itself, not with what is inside it; each as the end of "It …". The value is as
// Decode gives it; nil is not checked, since absence is the required list's matter.
func (f *Field) Check(value any) (faults []string) {
	complain := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	switch v := value.(type) {
	case string:
		length := utf8.RuneCountInString(v)
		complain(len(f.Enum) > 0 && !contains(f.Enum, v), "must be one of %s", quoted(f.Enum))
		complain(f.MinLength != nil && length < *f.MinLength, "must have at least %d characters", deref(f.MinLength))
		complain(f.MaxLength != nil && length > *f.MaxLength, "must have at most %d characters", deref(f.MaxLength))
		complain(f.Pattern != nil && !f.Pattern.MatchString(v), "must match `%s`", f.Pattern)
		if format, ok := formats[f.Format]; ok {
			complain(!format.holds(v), "must be %s", format.words)
		}
	case json.Number:
		n, err := v.Int64()
		complain(err != nil, "must be a whole number")
		complain(f.Minimum != nil && n < *f.Minimum, "must be at least %d", deref(f.Minimum))
		complain(f.Maximum != nil && n > *f.Maximum, "must be at most %d", deref(f.Maximum))
	case []any:
		complain(f.MinItems != nil && len(v) < *f.MinItems, "must have at least %d elements", deref(f.MinItems))
		complain(f.MaxItems != nil && len(v) > *f.MaxItems, "must have at most %d elements", deref(f.MaxItems))
		for i, element := range v {
			complain(element == nil, "must not hold null (element %d)", i)
		}
	case map[string]any:
		complain(f.MaxKeys != nil && len(v) > *f.MaxKeys, "must have at most %d keys", deref(f.MaxKeys))
		for key, element := range v {
			complain(f.Keys != nil && !f.Keys.MatchString(key), "must have only keys that match `%s`, not %q", f.Keys, key)
			complain(f.Type == Map && element == nil, "must not hold null (key %q)", key)
		}
	}
	return faults
}

// Words is the description with what else a reader must know: unit, values, bounds, default.
func (f *Field) Words() string {
	words := []string{f.Description}
	say := func(is bool, format string, args ...any) {
		if is {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	say(f.Unit != "", "In %s.", f.Unit)
	say(len(f.Enum) > 0, "One of %s.", quoted(f.Enum))
	say(f.Minimum != nil && f.Maximum != nil, "From %d to %d.", deref(f.Minimum), deref(f.Maximum))
	say(f.Minimum != nil && f.Maximum == nil, "At least %d.", deref(f.Minimum))
	say(f.Minimum == nil && f.Maximum != nil, "At most %d.", deref(f.Maximum))
	say(f.MaxItems != nil, "At most %d.", deref(f.MaxItems))
	say(f.Default != nil, "Default: `%s`.", compact(f.Default))
	say(f.Immutable, "Cannot change once set.")
	return strings.TrimSpace(strings.Join(words, " "))
}

func compact(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	data, _ := json.Marshal(value)
	return string(data)
}

func quoted(words []string) string {
	return "`" + strings.Join(words, "`, `") + "`"
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

func deref[T any](pointer *T) (value T) {
	if pointer != nil {
		value = *pointer
	}
	return value
}
