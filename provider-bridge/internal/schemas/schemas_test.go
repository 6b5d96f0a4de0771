package schemas

import (
	"strings"
	"testing"
)

func field(t *testing.T, kind, path string) *Field {
	t.Helper()
	f := Embedded().Kind(kind).Spec
	for _, step := range strings.Split(path, ".") {
		if f.Items != nil {
			f = f.Items
		}
		if f = f.Field(step); f == nil {
			t.Fatalf("%s has no %s", kind, path)
		}
	}
	return f
}

func TestEveryExampleOfOneValueIsJudgedAsTheServiceJudgesIt(t *testing.T) {
	for _, each := range []struct {
		kind, path, good, bad string
	}{
		{"network", "cidr", `"10.1.0.0/24"`, `"10.1.0.1/24"`},
		{"network", "cidr", `"10.0.0.0/8"`, `"10.0.0.0/30"`},
		{"network", "dns_servers", `["9.9.9.9"]`, `["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]`},
		{"instance", "cpus", `256`, `257`},
		{"instance", "cpus", `1`, `0`},
		{"instance", "disks", `[{}]`, `[]`},
		{"instance", "disks.bus", `"scsi"`, `"ide"`},
		{"instance", "networks.address", `"10.1.0.9"`, `"10.1.0.09"`},
		{"instance", "networks.mac", `"02:00:00:00:00:01"`, `"03:00:00:00:00:01"`},
		{"instance", "networks.network", `"other/lan"`, `"a/b/c"`},
		{"instance", "user_data", `"ä"`, `""`},
		{"instance", "ssh_keys", `["a"]`, `[null]`},
		{"image", "source.url", `"https://h/i"`, `"file:///etc/passwd"`},
		{"image", "source.url", `"http://h/i"`, `"http://h/i\n"`},
		{"key", "expires_at", `"2026-11-22T10:00:00Z"`, `"tomorrow"`},
		{"key", "secret", `"` + strings.Repeat("a", 43) + `"`, `"` + strings.Repeat("a", 42) + `"`},
	} {
		for text, valid := range map[string]bool{each.good: true, each.bad: false} {
			value, err := Decode([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if faults := field(t, each.kind, each.path).Check(value); (len(faults) == 0) != valid {
				t.Errorf("%s.%s = %s: %v", each.kind, each.path, text, faults)
			}
		}
	}
}

func TestEveryFormatInUseIsKnown(t *testing.T) {
	var walk func(kind string, f *Field)
	walk = func(kind string, f *Field) {
		if _, ok := formats[f.Format]; f.Format != "" && !ok {
			t.Errorf("%s.%s: nobody checks the format %s", kind, f.Name, f.Format)
		}
		for _, inner := range f.Fields {
			walk(kind, inner)
		}
		if f.Items != nil {
			walk(kind, f.Items)
		}
	}
	for _, kind := range Embedded().Kinds {
		walk(kind.Name, kind.Spec)
	}
}

func TestDifferencesAreThoseThatMatter(t *testing.T) {
	instance := Embedded().Kind("instance")
	const have = `{"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1, "bus": "virtio"}], "networks": [], "ssh_keys": ["b", "a"],
		"power": "on", "firmware": "bios", "video": "none", "placement": {}}`
	for want, expected := range map[string]string{
		`{"memory_mib": 64, "cpus": 1, "disks": [{"size_gib": 1}], "ssh_keys": ["a", "b"], "user_data": "x"}`:                           "",
		`{"memory_mib": 64, "cpus": 2, "disks": [{"size_gib": 1}], "ssh_keys": ["a", "b"]}`:                                             "/spec/cpus",
		`{"memory_mib": 64, "cpus": 1, "disks": [{"size_gib": 1, "image": "i"}], "ssh_keys": ["a"]}`:                                    "/spec/disks /spec/ssh_keys",
		`{"memory_mib": 64, "cpus": 1, "disks": [{"size_gib": 1}], "ssh_keys": ["a", "b"], "placement": {"node": "n1"}}`:                "/spec/placement",
		`{"memory_mib": 64, "cpus": 1, "disks": [{"size_gib": 1}, {"size_gib": 2}], "ssh_keys": ["a", "b"], "networks": [], "nosy": 1}`: "/spec/disks",
	} {
		got, err := instance.Differences(nil, []byte(want), map[string]string{}, []byte(have))
		if err != nil || strings.Join(got, " ") != expected {
			t.Errorf("%s differs in %v, %v", want, got, err)
		}
	}
	got, err := instance.Differences(map[string]string{"a": "b"}, []byte(have), map[string]string{"a": "c"}, []byte(have))
	if err != nil || strings.Join(got, " ") != "/metadata" {
		t.Errorf("other metadata differs in %v, %v", got, err)
	}
}

func TestTheWordsSayUnitValuesBoundsAndDefault(t *testing.T) {
	for path, want := range map[string]string{"memory_mib": "In MiB. From 32 to 4194304.", "power": "One of `on`, `off`, `paused`. Default: `on`.",
		"ssh_keys": "At most 32. Default: `[]`. Cannot change once set."} {
		if words := field(t, "instance", path).Words(); !strings.HasSuffix(words, want) {
			t.Errorf("%s: %s", path, words)
		}
	}
}
