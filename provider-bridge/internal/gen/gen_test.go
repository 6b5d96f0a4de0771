package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

func TestWhatIsCommittedIsWhatTheSchemasSay(t *testing.T) {
	t.Chdir("../..")
	files, err := generate("../schemas")
	if err != nil {
		t.Fatal(err)
	}
	if err := current(files); err != nil {
		t.Error(err)
	}
}

func TestAChangedFileAndALeftoverAreNoticedAndMended(t *testing.T) {
	source, err := filepath.Abs("../../../schemas")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	files, err := generate(source)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(files); err != nil {
		t.Fatal(err)
	}
	leftover := "internal/schemas/v1/teapot.json"
	for _, path := range []string{leftover, "client/zz_codes.go"} {
		if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := current(files); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := write(files); err != nil {
		t.Fatal(err)
	}
	if err := current(files); err != nil {
		t.Error(err)
	}
}

func TestNamesAreSpelledAsGoSpellsThem(t *testing.T) {
	for name, want := range map[string]string{"memory_mib": "MemoryMiB", "floating-ip": "FloatingIP", "dns_servers": "DNSServers", "key_id": "KeyID"} {
		if got := exported(name); got != want {
			t.Errorf("%s becomes %s", name, got)
		}
	}
}

func TestAWordThatNobodyUnderstandsIsAnError(t *testing.T) {
	directory := t.TempDir()
	for name, text := range map[string]string{"v1/common.json": `{"$defs": {"name": {}, "metadata": {}, "status": {}}}`,
		"v1/teapot.json": `{"x-kind": {"plural": "teapots"}, "type": "object", "x-boils": true}`, "errors.json": "{}"} {
		path := filepath.Join(directory, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := schemas.Load(os.DirFS(directory)); err == nil || !strings.Contains(err.Error(), "x-boils") {
		t.Error(err)
	}
}

func TestTheNewestReleaseIsTheVersion(t *testing.T) {
	source := t.TempDir()
	if _, err := version(source); err == nil {
		t.Error("a version, and nothing is released")
	}
	for minor := range 11 {
		if err := os.MkdirAll(filepath.Join(source, "released", fmt.Sprintf("1.%d", minor)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := version(source); err != nil || !strings.Contains(string(text), `Version = "1.10"`) {
		t.Error(string(text), err)
	}
}
