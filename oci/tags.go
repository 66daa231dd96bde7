package oci

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// maxTags is how many tags of a repository are read; the largest of Docker Hub
// have a few ten thousand.
const maxTags = 200_000

// Tags lists the tags of the repository in a registry that a reference names, in
// the registry's order. Mirrors are asked first.
func Tags(ctx context.Context, ref string, o PullOptions) ([]string, error) {
	r, err := parseReference(ref, o.plain)
	if err != nil {
		return nil, err
	}
	if r.transport != transportRegistry {
		return nil, fmt.Errorf("list tags of %s: only a registry has tags", r)
	}
	places, err := o.places(r.registry)
	if err != nil {
		return nil, err
	}
	p := &pull{ref: r, options: o}
	var failed error
	for _, where := range places {
		tags, err := p.tags(ctx, where)
		if err == nil {
			return tags, nil
		}
		if failed = errors.Join(failed, err); ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("list tags of %s: %w", r, failed)
}

func (p *pull) tags(ctx context.Context, where place) ([]string, error) {
	l := findLogin(ctx, where.ref.Context())
	repo, err := p.connect(ctx, where, l, false, transport.PullScope)
	if err != nil {
		return nil, explainRegistry(err, where, l)
	}
	defer repo.close()
	lister, err := repo.puller.Lister(ctx, where.ref.Context())
	if err != nil {
		return nil, explainRegistry(err, where, l)
	}
	var tags []string
	for lister.HasNext() {
		page, err := lister.Next(ctx)
		if err != nil {
			return nil, explainRegistry(err, where, l)
		}
		if tags = append(tags, page.Tags...); len(tags) > maxTags || len(page.Tags) == 0 && lister.HasNext() {
			return nil, fmt.Errorf("%s: a list of more than %d tags, or one that does not end", where, maxTags)
		}
	}
	return tags, nil
}
