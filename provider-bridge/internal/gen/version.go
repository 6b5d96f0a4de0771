package main

import (
	"fmt"
	"path/filepath"
)

// version is the newest release. They are numbered without gaps.
func version(source string) ([]byte, error) {
	released, err := filepath.Glob(filepath.Join(source, "released", "1.*"))
	if err != nil {
		return nil, err
	}
	if len(released) == 0 {
		return nil, fmt.Errorf("%s: no version is released", source)
	}
	return fmt.Appendf(nil, "%spackage client\n\n// Version is the version of the API that this was built for. What came later keeps its value in a PUT.\nconst Version = \"1.%d\"\n",
		marked, len(released)-1), nil
}
