package report

import (
	"fmt"
	"mime"
	"net/mail"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Mail is what only the form Email takes beside the document.
type Mail struct {
	From string // "Name <address>" of who reports it; empty leaves that to git send-email
	Link string // where the bundle can be had
	// Maintainers is what scripts/get_maintainer.pl printed of the culprit's patch.
	Maintainers string
}

// regressions is where every report goes too, and regzbot reads: see
// Documentation/admin-guide/reporting-regressions.rst.
const regressions = "regressions@lists.linux.dev"

const maxRecipients = 40

// email is a mail that git send-email takes as it is: headers, an empty line, plain
// text. The people are proposed: who sends it sees them, and git send-email asks.
//
// Nothing but To and Cc here names recipients: the lines of the body that git
// send-email would take some from (Signed-off-by and the like) are indented.
func email(d Document) ([]byte, error) {
	if d.Mail.From != "" {
		from, err := ParseAddress(d.Mail.From)
		if err != nil {
			return nil, err
		}
		d.Mail.From = fmt.Sprintf("%s <%s>", from.Name, from.Address)
	}
	if d.Mail.Link != oneLine(d.Mail.Link) || strings.ContainsAny(d.Mail.Link, " <>") {
		return nil, fmt.Errorf("link %q is no address of a file", d.Mail.Link)
	}
	var head strings.Builder
	text := body(d)
	if d.Mail.From != "" {
		from, _ := ParseAddress(d.Mail.From)
		head.WriteString("From: " + from.String() + "\n")
	}
	to, cc := recipients(d)
	writeList(&head, "To", to)
	writeList(&head, "Cc", cc)
	head.WriteString(encodeSubject(subject(d)))
	head.WriteString("MIME-Version: 1.0\n")
	if isASCII(text) {
		head.WriteString("Content-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 7bit\n\n")
	} else {
		head.WriteString("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n")
	}
	return append([]byte(head.String()), cut([]byte(text), MaxText-head.Len())...), nil
}

// recipients proposes who gets it: the culprit's author and the maintainers of what
// it touches; for information who signed, reviewed, acknowledged or tested it, the
// lists, and the list of regressions.
func recipients(d Document) (to, cc []mail.Address) {
	seen := map[string]bool{}
	add := func(list *[]mail.Address, what string) {
		a, err := ParseAddress(what)
		key := strings.ToLower(a.Address)
		if err == nil && !seen[key] && len(seen) < maxRecipients {
			seen[key] = true
			*list = append(*list, a)
		}
	}
	if c := d.Manifest.Culprit; c != nil {
		add(&to, c.Author)
	}
	var lists []string
	for i, line := range lines(plainText(d.Mail.Maintainers, maxLog)) {
		if i == 200 {
			break
		}
		// "Name <address> (maintainer:AUDIT SUBSYSTEM)", "list@host (open list:…)"
		who, role, _ := strings.Cut(line, " (")
		if strings.Contains(role, " list") {
			lists = append(lists, who)
		} else {
			add(&to, who)
		}
	}
	add(&cc, regressions)
	for _, who := range signers(d.Patch) {
		add(&cc, who)
	}
	for _, who := range lists {
		add(&cc, who)
	}
	if len(to) == 0 { // nobody is known
		to, cc = cc, nil
	}
	return to, cc
}

var signed = regexp.MustCompile(`(?i)^(?:signed-off|reviewed|acked|tested|co-developed|reported|suggested)-by:[ \t]+(.+)$`)

// signers are those of a commit's message, which ends with a line of three dashes.
func signers(patch string) []string {
	var list []string
	for _, line := range lines(patch) {
		if line == "---" || strings.HasPrefix(line, "diff --git ") {
			break
		}
		if m := signed.FindStringSubmatch(line); m != nil {
			list = append(list, m[1])
		}
	}
	return list
}

var (
	address  = regexp.MustCompile(`^[A-Za-z0-9._+%=/-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?$`)
	inBraces = regexp.MustCompile(`^(.*?)<([^<>]*)>`)
)

// ParseAddress reads "Name <address>" as commits have it, or an address alone: what
// RFC 5322 allows beyond that no commit needs. The name may be anything; it is
// made one line of plain text, and String quotes it.
func ParseAddress(s string) (mail.Address, error) {
	s = oneLine(s)
	a := mail.Address{Address: s}
	if m := inBraces.FindStringSubmatch(s); m != nil {
		a.Name, a.Address = strings.Trim(m[1], `" `), strings.TrimSpace(m[2])
	}
	if !address.MatchString(a.Address) {
		return mail.Address{}, fmt.Errorf("%q is no mail address: write \"Name <name@example.org>\"", s)
	}
	a.Name = clip(a.Name, 60)
	return a, nil
}

// writeList writes a header of addresses, one a line.
func writeList(b *strings.Builder, name string, list []mail.Address) {
	for i, a := range list {
		if i == 0 {
			b.WriteString(name + ": ")
		} else {
			b.WriteString(",\n\t")
		}
		if a.Name == "" {
			b.WriteString(a.Address)
		} else {
			b.WriteString(a.String())
		}
	}
	if len(list) > 0 {
		b.WriteString("\n")
	}
}

// encodeSubject writes the subject, folded: as it is where it is ASCII, else in
// encoded words (RFC 2047).
func encodeSubject(s string) string {
	if !isASCII(s) {
		s = mime.QEncoding.Encode("utf-8", s)
	}
	return wrap(s, "Subject: ", " ") + "\n"
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
